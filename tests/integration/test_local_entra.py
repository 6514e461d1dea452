"""The local token issuer: what a verifier that follows its metadata accepts, and every token it must not."""

import sys

import httpx
import jwt
import pytest

from local.entra import AUDIENCE, FLAWS, TENANT_ID, Issuer
from local.process import Process, free_port, is_listening

REFUSED_AS = {
    "expired": jwt.ExpiredSignatureError,
    "not_yet_valid": jwt.ImmatureSignatureError,
    "wrong_audience": jwt.InvalidAudienceError,
    "wrong_issuer": jwt.InvalidIssuerError,
    "wrong_key": jwt.InvalidSignatureError,
    "unknown_key": jwt.PyJWKClientError,
    "unsigned": jwt.InvalidAlgorithmError,
    "public_key_as_secret": jwt.InvalidAlgorithmError,
}


@pytest.fixture(scope="module")
def issuer():
    """The addresses of an issuer in a process of its own, which alone has the key."""
    port = free_port()
    process = Process("entra", [sys.executable, "-m", "local.entra", "--port", str(port)])
    process.wait_until(lambda: is_listening(port))
    yield Issuer(f"http://127.0.0.1:{port}")
    process.stop()


def minted(issuer, **claims):
    """A token of that process."""
    return httpx.post(f"{issuer.url}/sim/tokens", json=claims).raise_for_status().json()["access_token"]


def verify(issuer, token):
    """As a gateway does that knows the metadata's address and the audience, and nothing else."""
    metadata = httpx.get(issuer.metadata_url).json()
    key = jwt.PyJWKClient(metadata["jwks_uri"]).get_signing_key_from_jwt(token)
    return jwt.decode(token, key.key, algorithms=["RS256"], audience=AUDIENCE, issuer=metadata["issuer"])


def test_a_token_is_valid_by_the_published_key(issuer):
    """Claims arrive as minted, with the usual ones beside them."""
    token = minted(issuer, oid="o-1", appid="app-1", groups=["g-1"], roles=["Caller"], iat=None)
    claims = verify(issuer, token)
    assert (claims["oid"], claims["appid"], claims["groups"], claims["roles"]) == ("o-1", "app-1", ["g-1"], ["Caller"])
    assert (claims["tid"], claims["sub"]) == (TENANT_ID, "o-1")
    assert "iat" not in claims
    assert jwt.get_unverified_header(token)["alg"] == "RS256"


def test_what_cannot_be_minted_is_refused(issuer):
    """A flaw nobody knows, and claims that are no object."""
    assert httpx.post(f"{issuer.url}/sim/tokens", json={"flaw": "of nature"}).status_code == 400
    assert httpx.post(f"{issuer.url}/sim/tokens", content=b"[]").status_code == 400


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flawed_token_fails_for_its_flaw(issuer, flaw):
    """Each is refused for the reason its name gives and would pass without it."""
    with pytest.raises(REFUSED_AS[flaw]):
        verify(issuer, minted(issuer, flaw=flaw, oid="o-1"))
