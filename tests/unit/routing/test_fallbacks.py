"""Which models may stand in for one that does not answer, and where they are looked for."""

from datetime import UTC, datetime

import pytest

from shared.config.model import Config, Endpoint, Model, PriceOverride, Tenant
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.routing.fallbacks import fallback_models
from shared.routing.router import ANYWHERE, Bounds, Router

NOW_UTC = datetime(2026, 11, 22, tzinfo=UTC)
CHAT = frozenset({"chat"})
ABLE = frozenset({"chat", "tools"})


def chain(*models, alternatives=(), operation="chat", needs=CHAT, input_tokens=10, max_output_tokens=None):
    """The stand-ins of the first model."""
    by_id = {model.id: model for model in models}
    found = fallback_models(
        by_id,
        models[0].id,
        alternatives,
        operation=operation,
        needs=needs,
        input_tokens=input_tokens,
        max_output_tokens=max_output_tokens,
    )
    return list(found)


def first(*fallbacks, **fields):
    return Model("first", fallbacks=fallbacks, **{"capabilities": ABLE, **fields})


def test_fallbacks_come_in_their_order_and_only_once():
    """What config lists, in config's order; a name that config does not know, or the model itself, is passed over."""
    others = (Model("a", capabilities=ABLE), Model("b", capabilities=ABLE))
    assert chain(first("b", "gone", "first", "a", "b"), *others) == ["b", "a"]


def test_a_fallback_that_lacks_what_the_call_needs_is_passed_over():
    """Without tools, or with too small a context, it would only fail in turn; what config does not state is no lack."""
    plain, small = Model("plain", capabilities=CHAT), Model("small", capabilities=ABLE, context_tokens=1000)
    terse, silent = Model("terse", capabilities=ABLE, max_output_tokens=50), Model("silent")
    models = (first("plain", "small", "terse", "silent"), plain, small, terse, silent)
    assert chain(*models, needs=ABLE, input_tokens=950, max_output_tokens=100) == ["silent"]
    assert chain(*models, input_tokens=10, max_output_tokens=10) == ["plain", "small", "terse", "silent"]


def test_a_routed_call_goes_on_to_its_alternatives():
    """They are the cheapest that can do it, and so come before what config lists for the one that failed."""
    others = (Model("a", capabilities=ABLE), Model("b", capabilities=ABLE))
    assert chain(first("a"), *others, alternatives=("b", "a")) == ["b", "a"]


def test_embeddings_have_no_stand_in():
    """Vectors of another model would silently ruin the index they are stored in."""
    vectors = Model("vectors", capabilities=frozenset({"embeddings"}))
    assert chain(first("vectors", capabilities=frozenset()), vectors, operation="embeddings") == []


def endpoint(name, region, zone):
    return Endpoint(id=name, provider="house", api="openai", url=f"https://{name}.test", region=region, data_zone=zone)


def router():
    """`wide` is served in the EU and the US, `narrow` in the US only, `lost` nowhere."""
    endpoints = {"eu": endpoint("eu", "westeurope", "eu"), "us": endpoint("us", "eastus", "us")}
    models = {
        "wide": Model("wide", "house", deployments=("wide-us", "wide-eu"), capabilities=CHAT, places={"wide-us": "us"}),
        "narrow": Model("narrow", "house", deployments=("narrow-us",), capabilities=CHAT, places={"narrow-us": "us"}),
        "lost": Model("lost", "elsewhere", capabilities=CHAT),
    }
    prices = tuple(
        PriceOverride(name, datetime(2026, 1, 1, tzinfo=UTC), {"input": paid, "output": paid})
        for name, paid in (("wide", 2_000_000), ("narrow", 1_000_000), ("lost", 1))
    )
    config = Config("v1", {"contoso": Tenant("contoso")}, {}, (), models, prices=prices, endpoints=endpoints)
    return Router(config, Pricer(PriceBook([]), config))


def cheapest(bounds, **wanted):
    return router().cheapest(CHAT, 1000, 100, "contoso", NOW_UTC, bounds=bounds, **wanted)


def test_a_model_without_an_endpoint_is_never_routed_to():
    """However cheap it is: a call to it could not be served."""
    route = cheapest(ANYWHERE)
    assert (route.model, route.deployment) == ("narrow", "narrow-us")
    assert route.rejected == {"lost": "no endpoint serves it"}


def test_a_data_zone_keeps_calls_inside():
    """The model is chosen, and of it the deployment, that is known to lie there; upper and lower case are one."""
    route = cheapest(Bounds(data_zone="EU"))
    assert (route.model, route.deployment) == ("wide", "wide-eu")
    assert route.rejected["narrow"] == "not known to be served in data zone EU"
    assert "in data zone EU" in route.why
    nowhere = cheapest(Bounds(region="eastus", data_zone="eu"))
    assert nowhere.model is None
    assert "in region eastus and data zone eu" in nowhere.why


def test_a_model_that_may_not_be_used_is_not_chosen():
    """The tenant's and the team's allowed models hold for routes too."""
    route = cheapest(ANYWHERE, may_use=lambda model: model != "narrow")
    assert (route.model, route.rejected["narrow"]) == ("wide", "not among the allowed models")


def test_a_named_deployment_stays_where_it_lies_inside():
    """A caller that names a deployment gets that one; only outside the bounds another takes its place."""
    routes = router()
    assert routes.served_inside("wide", Bounds(region="eastus"), "wide-us").deployment == "wide-us"
    assert routes.served_inside("wide", Bounds(data_zone="eu"), "wide-us").deployment == "wide-eu"
    assert routes.served_inside("narrow", Bounds(data_zone="eu")) is None


def test_a_model_costs_what_it_does_where_it_runs():
    """Some are priced for each of Azure's zones and for no other place: which zone it is only the endpoint says."""
    luna = Model("gpt-6-luna", deployments=("luna-weu",), capabilities=CHAT, deployment_type="data-zone")
    in_europe = Endpoint(id="weu", provider="azure-openai", api="azure-openai", url="https://x", region="West Europe")
    tenants, models = {"contoso": Tenant("contoso")}, {luna.id: luna}

    def route(**endpoints):
        config = Config("v1", tenants, {}, (), models, endpoints=endpoints)
        return Router(config, Pricer(PriceBook.load(), config)).cheapest(CHAT, 1_000, 100, "contoso", NOW_UTC)

    prices = PriceBook.load().find("azure-openai", luna.id, "data-zone-eu", "standard", NOW_UTC).unit_pico
    assert route(weu=in_europe).cost_nano_usd == (1_000 * prices["input"] + 100 * prices["output"]) // 1000
    assert route().rejected == {"gpt-6-luna": "its price is unknown"}


def test_a_response_is_routed_to_an_api_that_has_responses():
    """Anthropic's has chats only: chosen as the cheapest it would refuse the call."""
    apis = {"claude": "anthropic", "house": "openai"}
    endpoints = {name: Endpoint(id=name, provider=name, api=api, url="https://x.test") for name, api in apis.items()}
    models = {name: Model(name, name, capabilities=CHAT) for name in apis}
    prices = tuple(
        PriceOverride(name, datetime(2026, 1, 1, tzinfo=UTC), {"input": paid, "output": paid})
        for name, paid in (("claude", 1_000_000), ("house", 2_000_000))
    )
    config = Config("v1", {"contoso": Tenant("contoso")}, {}, (), models, prices=prices, endpoints=endpoints)
    router = Router(config, Pricer(PriceBook([]), config))
    assert router.cheapest(CHAT, 10, 10, "contoso", NOW_UTC).model == "claude"
    route = router.cheapest(CHAT, 10, 10, "contoso", NOW_UTC, operation="responses")
    assert (route.model, route.rejected) == ("house", {"claude": "its API has no responses"})
    assert router.unable("house", 10, 10, ANYWHERE, "responses") == {"claude"}  # so no rule leads there
    assert not router.unable("house", 10, 10, ANYWHERE, "chat")


@pytest.mark.parametrize("wanted", ["westeurope", "WestEurope", "West Europe"])
def test_a_region_is_one_in_either_spelling(wanted):
    """Azure's API writes `westeurope`, its portal West Europe; configs and callers copy from both."""
    for region in ("westeurope", "West Europe"):
        endpoint = Endpoint(id="weu", provider="azure-openai", api="azure-openai", url="https://x", region=region)
        assert Bounds(region=wanted).admit(endpoint)
        assert not Bounds(region="northeurope").admit(endpoint)
