"""Which model: the cheapest that can do the work, never one of unknown price."""

from __future__ import annotations

from datetime import UTC, datetime

from shared.config.model import Config, Model, PriceOverride, Tenant
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.routing.router import ANYWHERE, Router

NOW_UTC = datetime(2026, 11, 21, 12, tzinfo=UTC)
CHAT, TOOLS = frozenset({"chat"}), frozenset({"chat", "tools"})


def _router(*models: Model, usd_per_million: dict[str, tuple[int, int]]) -> Router:
    """A router over models of the provider `house`, priced (input, output) in USD per million where listed."""
    prices = tuple(
        PriceOverride(
            model, datetime(2026, 1, 1, tzinfo=UTC), {"input": paid * 1_000_000, "output": answered * 1_000_000}
        )
        for model, (paid, answered) in usd_per_million.items()
    )
    config = Config("v1", {"contoso": Tenant("contoso")}, {}, (), {model.id: model for model in models}, prices)
    return Router(config, Pricer(PriceBook([]), config))


def _model(name: str, capabilities: frozenset[str] = CHAT, **more: object) -> Model:
    return Model(name, "house", capabilities=capabilities, **more)  # type: ignore[arg-type]


def test_the_cheapest_for_this_mix_of_tokens_wins() -> None:
    """Which model is cheapest depends on the mix: long prompts favour cheap input, long answers cheap output."""
    router = _router(_model("reader"), _model("writer"), usd_per_million={"reader": (1, 20), "writer": (5, 6)})
    long_prompt = router.cheapest(CHAT, 10_000, 100, "contoso", NOW_UTC)
    long_answer = router.cheapest(CHAT, 100, 10_000, "contoso", NOW_UTC)
    assert (long_prompt.model, long_prompt.cost_nano_usd) == ("reader", (10_000 * 1 + 100 * 20) * 1000)
    assert (long_answer.model, long_answer.cost_nano_usd) == ("writer", (100 * 5 + 10_000 * 6) * 1000)
    assert [choice.model for choice in long_prompt.alternatives] == ["writer"]
    assert "cheapest of 2" in long_prompt.why


def test_ties_go_to_the_id_that_sorts_first() -> None:
    """Equal costs give the same answer on every worker, whatever the order of the config."""
    prices = {"b": (1, 1), "a": (1, 1)}
    assert (
        _router(_model("b"), _model("a"), usd_per_million=prices).cheapest(CHAT, 1, 1, "contoso", NOW_UTC).model == "a"
    )


def test_unknown_price_is_never_cheapest() -> None:
    """A model without a price may be the dearest; it is not chosen, and the answer says why."""
    router = _router(_model("known"), _model("mystery"), usd_per_million={"known": (100, 100)})
    route = router.cheapest(CHAT, 10, 10, "contoso", NOW_UTC)
    assert route.model == "known"
    assert route.rejected == {"mystery": "its price is unknown"}


def test_a_model_that_lists_the_tier_asked_for_is_cheaper_than_one_that_does_not() -> None:
    """gpt-5.4-nano lists no priority price: what it would be billed then is the guard, gpt-5.4's 2.50 and 15 USD."""
    models = {name: Model(name, "openai", capabilities=CHAT) for name in ("gpt-5.4", "gpt-5.4-mini", "gpt-5.4-nano")}
    config = Config("v1", {"contoso": Tenant("contoso")}, {}, (), models)
    router = Router(config, Pricer(PriceBook.load(), config))

    def costs(service_tier: str) -> dict[str, int]:
        route = router.cheapest(CHAT, 1000, 100, "contoso", NOW_UTC, service_tier=service_tier)
        assert route.model is not None
        assert route.cost_nano_usd is not None
        return {route.model: route.cost_nano_usd} | {each.model: each.cost_nano_usd for each in route.alternatives}

    assert list(costs("auto")) == ["gpt-5.4-nano", "gpt-5.4-mini", "gpt-5.4"]
    assert list(costs("priority").items()) == [
        ("gpt-5.4-mini", 1000 * 1_500 + 100 * 9_000),
        ("gpt-5.4-nano", 1000 * 2_500 + 100 * 15_000),
        ("gpt-5.4", 1000 * 5_000 + 100 * 30_000),
    ]
    assert costs("flex") == costs("")  # may be served as standard


def test_every_needed_capability_must_be_there() -> None:
    """A superset of the needed capabilities is capable; a model that lacks one is not, however cheap."""
    models = (_model("plain"), _model("able", frozenset({"chat", "tools", "vision"})))
    route = _router(*models, usd_per_million={"plain": (1, 1), "able": (9, 9)}).cheapest(
        TOOLS, 10, 10, "contoso", NOW_UTC
    )
    assert route.model == "able"
    assert route.rejected == {"plain": "lacks tools"}


def test_tokens_must_fit_the_model() -> None:
    """Prompt plus answer must fit the context, the answer the model's limit; a limit not stated does not exclude."""
    models = (
        _model("small", context_tokens=1000),
        _model("terse", context_tokens=9000, max_output_tokens=100),
        _model("open"),
    )
    router = _router(*models, usd_per_million={"small": (1, 1), "terse": (2, 2), "open": (3, 3)})
    assert router.cheapest(CHAT, 900, 100, "contoso", NOW_UTC).model == "small"
    assert router.cheapest(CHAT, 901, 100, "contoso", NOW_UTC).model == "terse"
    assert router.cheapest(CHAT, 901, 101, "contoso", NOW_UTC).model == "open"
    assert router.cheapest(CHAT, 1000, None, "contoso", NOW_UTC).model == "small"


def test_no_capable_model_is_an_answer() -> None:
    """Nothing fits: the answer is None with a reason for each model, not an exception."""
    route = _router(_model("plain"), usd_per_million={"plain": (1, 1)}).cheapest(
        TOOLS, 1, 1, "contoso", NOW_UTC, exclude=["plain"]
    )
    assert (route.model, route.cost_nano_usd, route.alternatives) == (None, None, ())
    assert route.rejected == {"plain": "excluded by the request"}
    assert route.body()["model"] is None


def test_embedding_model_is_priced_without_output() -> None:
    """An embedding has no output and no price for one; it still competes."""
    model = _model("embed", frozenset({"embeddings"}))
    price = PriceOverride("embed", datetime(2026, 1, 1, tzinfo=UTC), {"input": 20_000})
    config = Config("v1", {}, {}, (), {"embed": model}, (price,))
    route = Router(config, Pricer(PriceBook([]), config)).cheapest({"embeddings"}, 1000, None, "contoso", NOW_UTC)
    assert (route.model, route.cost_nano_usd) == ("embed", 1000 * 20_000 // 1000)


def test_downgrade_to_cheapest_keeps_every_capability_and_saves_money() -> None:
    """`cheapest` costs less, can do all the requested model can, and is of the same provider."""
    models = (
        _model("big", TOOLS),
        _model("middle", TOOLS),
        _model("plain"),
        Model("elsewhere", "other", capabilities=TOOLS),
    )
    prices = {"big": (10, 40), "middle": (5, 20), "plain": (1, 1), "elsewhere": (1, 1)}
    router = _router(*models, usd_per_million=prices)
    assert router.downgrade_target("big", "cheapest", "contoso", NOW_UTC) == "middle"
    assert router.downgrade_target("middle", "cheapest", "contoso", NOW_UTC) == "middle"


def test_embeddings_are_not_downgraded_to_cheapest() -> None:
    """Vectors of two models do not mix: saving money must not ruin a search index. A named target is a choice."""
    models = (_model("large", frozenset({"embeddings"})), _model("small", frozenset({"embeddings"})))
    router = _router(*models, usd_per_million={"large": (2, 2), "small": (1, 1)})
    assert router.downgrade_target("large", "cheapest", "contoso", NOW_UTC) == "large"
    assert router.downgrade_target("large", "small", "contoso", NOW_UTC) == "small"


def test_downgrade_from_the_unknown_goes_nowhere() -> None:
    """What an unknown model can do, or costs, is not known: nothing is known to replace it, or to be cheaper."""
    models = (_model("small"), _model("mystery"))
    router = _router(*models, usd_per_million={"small": (1, 1)})
    assert router.downgrade_target("never-heard-of", "cheapest", "contoso", NOW_UTC) is None
    assert router.downgrade_target("mystery", "cheapest", "contoso", NOW_UTC) is None


def test_a_named_downgrade_target_is_itself_if_it_can_stand_in() -> None:
    """A rule's named target is served, but not for a call to itself, nor when it lacks what the requested model can."""
    router = _router(_model("big", TOOLS), _model("small", TOOLS), _model("plain"), usd_per_million={})
    assert router.downgrade_target("big", "small", "contoso", NOW_UTC) == "small"
    assert router.downgrade_target("big", "plain", "contoso", NOW_UTC) is None
    assert router.downgrade_target("small", "small", "contoso", NOW_UTC) is None
    assert router.downgrade_target("unlisted", "small", "contoso", NOW_UTC) == "small"


def test_models_view_shows_prices_in_force_and_fallbacks_both_ways() -> None:
    """`GET /models` lists each model with its price as decimal strings, and says plainly when it has none."""
    models = (_model("big", fallbacks=("small",)), _model("small", context_tokens=8000))
    big, small = _router(*models, usd_per_million={"big": (3, 12)}).models_view("contoso", NOW_UTC)
    assert big["prices"]["usd_per_million"] == {"input": "3.00", "output": "12.00"}
    assert big["prices"]["effective_from"] == "2026-01-01T00:00:00Z"
    assert big["fallbacks"] == ["small"]
    assert small["fallback_for"] == ["big"]
    assert (small["pricing_status"], small["prices"]) == ("unpriced", None)


def test_each_of_several_answers_must_fit_not_all_together() -> None:
    """Four answers of up to 100 tokens fit a model that writes 100: they cost 400, but none of them is longer."""
    router = _router(_model("terse", max_output_tokens=100, context_tokens=200), usd_per_million={"terse": (1, 1)})
    four = router.cheapest(CHAT, 100, 400, "contoso", NOW_UTC, choices=4)
    assert (four.model, four.cost_nano_usd) == ("terse", (100 + 400) * 1000)
    assert router.cheapest(CHAT, 100, None, "contoso", NOW_UTC, choices=4).cost_nano_usd == (100 + 4 * 500) * 1000
    assert router.cheapest(CHAT, 100, 404, "contoso", NOW_UTC, choices=4).model is None
    assert router.cheapest(CHAT, 100, 400, "contoso", NOW_UTC).model is None


def test_a_call_is_not_downgraded_to_a_model_that_cannot_hold_it() -> None:
    """The cheapest of all has room for 1,000 tokens: a longer call goes to the next, by rule or as the cheapest."""
    models = (_model("big"), _model("middle", context_tokens=5_000), _model("small", context_tokens=1_000))
    prices = {"big": (9, 9), "middle": (5, 5), "small": (1, 1)}
    router = _router(*models, usd_per_million=prices)

    def target(requested: str, to: str, input_tokens: int, max_output_tokens: int | None = None) -> str | None:
        unable = router.unable(requested, input_tokens, max_output_tokens, ANYWHERE)
        return router.downgrade_target(requested, to, "contoso", NOW_UTC, exclude=unable)

    assert [target("big", "cheapest", tokens) for tokens in (1_000, 1_001, 5_001)] == ["small", "middle", None]
    assert [target("big", "small", tokens) for tokens in (1_000, 1_001)] == ["small", None]
    assert [target("big", "small", 900, tokens) for tokens in (100, 101)] == ["small", None]
    assert target("middle", "small", 5_001) == "small"  # too much for the requested model too: estimated too high
