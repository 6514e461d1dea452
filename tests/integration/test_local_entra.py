"""The local token issuer: what a verifier that follows its metadata accepts, and every token it must not."""

import stat
import sys

import httpx
import jwt
import pytest

from local.entra import AUDIENCE, FLAWS, TENANT_ID, Issuer, key_in
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
def issuer(tmp_path_factory):
    port, key = free_port(), tmp_path_factory.mktemp("entra") / "key.pem"
    process = Process("entra", [sys.executable, "-m", "local.entra", "--port", str(port), "--key", key])
    process.wait_until(lambda: is_listening(port))
    yield Issuer(f"http://127.0.0.1:{port}", key_in(key))
    process.stop()


def verify(issuer, token):
    """As a gateway does that knows the metadata's address and the audience, and nothing else."""
    metadata = httpx.get(issuer.metadata_url).json()
    key = jwt.PyJWKClient(metadata["jwks_uri"]).get_signing_key_from_jwt(token)
    return jwt.decode(token, key.key, algorithms=["RS256"], audience=AUDIENCE, issuer=metadata["issuer"])


def test_a_token_is_valid_by_the_published_key(issuer):
    """Claims arrive as minted, with the usual ones beside them."""
    token = issuer.mint(oid="o-1", appid="app-1", groups=["g-1"], roles=["Caller"], iat=None)
    claims = verify(issuer, token)
    assert (claims["oid"], claims["appid"], claims["groups"], claims["roles"]) == ("o-1", "app-1", ["g-1"], ["Caller"])
    assert (claims["tid"], claims["sub"]) == (TENANT_ID, "o-1")
    assert "iat" not in claims
    assert jwt.get_unverified_header(token)["alg"] == "RS256"


def test_a_person_can_ask_for_a_token_over_http(issuer):
    """POST /sim/tokens mints with the same key, so curl is enough."""
    answer = httpx.post(f"{issuer.url}/sim/tokens", json={"azp": "app-2"}).json()
    assert verify(issuer, answer["access_token"])["azp"] == "app-2"
    assert httpx.post(f"{issuer.url}/sim/tokens", json={"flaw": "of nature"}).status_code == 400
    assert httpx.post(f"{issuer.url}/sim/tokens", content=b"[]").status_code == 400


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flawed_token_fails_for_its_flaw(issuer, flaw):
    """Each is refused for the reason its name gives and would pass without it."""
    with pytest.raises(REFUSED_AS[flaw]):
        verify(issuer, issuer.mint(flaw=flaw, oid="o-1"))
    answer = httpx.post(f"{issuer.url}/sim/tokens", json={"flaw": flaw, "oid": "o-1"}).json()
    with pytest.raises(REFUSED_AS[flaw]):
        verify(issuer, answer["access_token"])


def test_the_key_file_is_its_owners_alone_and_stays_the_same(tmp_path):
    """A second process that opens it signs with the same key."""
    path = tmp_path / "deep" / "key.pem"
    assert key_in(path).private_numbers() == key_in(path).private_numbers()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["key.pem"]
