"""The tour of `make run`: real calls of three teams until one has spent its budget, then the books."""

from __future__ import annotations

from decimal import Decimal

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from local.options import BUILT_IN, Options
from local.tour_calls import Callers, Outcome
from local.tour_gateway import Abilities, Shown
from local.tour_script import Progress, Script, Step
from local.tour_sums import TeamSums, wait_until_equal, wait_until_settled
from shared.config.model import Config
from shared.money import decimal_from_nano, nano_from_decimal

STATE_STYLES = {"active": "green", "warned": "yellow", "degraded": "dark_orange", "stopped": "bold red"}
DECISION_STYLES = {"allow": "green", "downgrade": "dark_orange", "refuse": "bold red"}
DECISION_WORDS = {"allow": "allowed", "downgrade": "downgraded", "refuse": "refused"}
TITLE = "Every call went through the gateway with the OpenAI SDK; amounts in USD"
MOST_CALLS_WITH_AZURE = 12  # real calls cost real money: enough to see the headers, not enough to notice


class Tour:
    """Plays the script, prints the table and the comparison."""

    def __init__(self, console: Console, options: Options, config: Config) -> None:
        self._console = console
        self._options = options
        self._config = config
        self._script = Script(config)
        self._progress = Progress()
        self._callers = Callers(options, config)

    def play(self) -> int:
        """The exit code: 0 when the books agree, 1 when they do not."""
        if self._script.spender is None or not self._script.chat_models:
            self._console.print("No team with a subscription, or no chat model, in the configuration: no tour.")
            return 0
        outcomes = self._make_calls()
        self._console.print(self._table(outcomes))
        self._explain(outcomes)
        shown = self._show_abilities()
        self._callers.close()
        sums = wait_until_equal(self._options, self._config, self._costs(outcomes, shown))
        self._print_sums(sums)
        self._print_where_next()
        return 0 if all(each.agree for each in sums) else 1

    def _make_calls(self) -> list[Outcome]:
        outcomes: list[Outcome] = []
        most = MOST_CALLS_WITH_AZURE if self._options.azure_endpoint else 1000
        with self._console.status("calling models ...") as status:
            for step in self._script.steps(self._progress):
                status.update(f"call {len(outcomes) + 1}: {step.team}, {step.kind} with {step.model} ...")
                outcomes.append(self._callers.call(len(outcomes) + 1, step))
                self._note(step, outcomes[-1])
                if step.team == self._script.spender:
                    # A call still in flight holds its estimate. Waiting until it is booked shows what is really left,
                    # and the end as the end: else the last call would be a "retry shortly", which the SDK obeys.
                    status.update(f"call {len(outcomes)} of {step.team} is being booked ...")
                    wait_until_settled(self._options, self._config, step.team)
                if len(outcomes) >= most:
                    break
        return outcomes

    def _note(self, step: Step, outcome: Outcome) -> None:
        if step.team != self._script.spender:
            return
        self._progress.state = outcome.state
        # A budget that is only held by calls in flight has room again in a moment: that is not the end.
        self._progress.refused = outcome.error is not None and "budget_reserved" not in outcome.error
        if outcome.error is None:
            self._progress.output_pico_usd = self._callers.output_pico_usd(step.team, outcome.served_model)

    def _table(self, outcomes: list[Outcome]) -> Table:
        """The wide table, or the narrow one where that would not fit."""
        wide = self._wide_table(outcomes)
        needed = self._console.measure(wide, options=self._console.options.update(max_width=1000)).maximum
        return wide if needed <= self._console.width else self._narrow_table(outcomes)

    def _narrow_table(self, outcomes: list[Outcome]) -> Table:
        """Fits 80 columns: no column for the decision, because an arrow, a missing cost and the state show it."""
        table = Table(
            title=TITLE, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False
        )
        table.add_column("#", justify="right", no_wrap=True)
        table.add_column("team", no_wrap=True)
        table.add_column("call", no_wrap=True)
        table.add_column("model", overflow="fold")
        table.add_column("cost", justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("remaining", justify="right", no_wrap=True)
        for outcome in outcomes:
            *before, decision, cost, state, remaining = _cells(outcome)
            table.add_row(*before, decision if outcome.decision == "refuse" else cost, state, remaining)
        return table

    def _wide_table(self, outcomes: list[Outcome]) -> Table:
        table = Table(title=TITLE, title_justify="left", box=SIMPLE, pad_edge=False, show_edge=False)
        table.add_column("#", justify="right", no_wrap=True)
        table.add_column("team", no_wrap=True)
        table.add_column("call", no_wrap=True)
        table.add_column("model", overflow="fold")
        table.add_column("decision", no_wrap=True)
        table.add_column("cost", justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("remaining", justify="right", no_wrap=True)
        for outcome in outcomes:
            table.add_row(*_cells(outcome))
        return table

    def _explain(self, outcomes: list[Outcome]) -> None:
        """One line per thing worth noticing in the table."""
        self._console.print()
        spender = self._script.spender
        own = [outcome for outcome in outcomes if outcome.step.team == spender]
        for state in ("warned", "degraded"):
            if (first := next((o for o in own if o.state == state), None)) is not None:
                self._console.print(f"  call {first.number:>2}: {spender} is [{STATE_STYLES[state]}]{state}[/]")
        refused = next((outcome for outcome in own if outcome.error), None)
        if refused is not None:
            self._console.print(
                f"  call {refused.number:>2}: {spender} is [bold red]stopped[/]: the SDK raised "
                f"[bold]openai.APIStatusError[/] {refused.error} and sent the call "
                f"{'once' if refused.tries == 1 else f'{refused.tries} times'}",
                soft_wrap=not self._console.is_terminal,
            )
        elif self._script.budget is not None:
            limit = decimal_from_nano(self._script.budget.limit_nano)
            self._console.print(f"  {spender} did not reach the end of its {limit} USD in {len(own)} calls")

    def _show_abilities(self) -> list[Shown]:
        """A few more calls of a team that has budget left, where no call costs real money."""
        if self._options.gateway != BUILT_IN or self._options.azure_endpoint or not self._script.others:
            return []
        shown = []
        self._console.print()
        for each in Abilities(self._options, self._config, self._callers, self._script.others[0]).play():
            shown.append(each)
            self._console.print(f"  {each.what:<22} {each.outcome}", markup=False, soft_wrap=True)
        return shown

    def _costs(self, outcomes: list[Outcome], shown: list[Shown]) -> dict[str, int | None]:
        """Nano-USD of each team's calls; None where one of them is not known."""
        calls = [(outcome.step.team, outcome.cost_nano_usd) for outcome in outcomes]
        calls += [(self._script.others[0], each.cost_nano_usd) for each in shown]
        costs: dict[str, int | None] = {}
        for team, cost in calls:
            before = costs.get(team, 0)
            costs[team] = None if before is None or cost is None else before + cost
        return costs

    def _print_sums(self, sums: list[TeamSums]) -> None:
        table = Table(title="The books, in USD", title_justify="left", show_footer=True, box=SIMPLE, pad_edge=False)
        ledger = sum(each.ledger_nano_usd for each in sums)
        counters = sum(each.counter_nano_usd or 0 for each in sums)
        agree = all(each.agree for each in sums)
        table.add_column("team", footer="all")
        table.add_column("booked", justify="right", footer=str(sum(each.requests for each in sums)))
        table.add_column("sum of the calls", justify="right", footer="")
        table.add_column("ledger", justify="right", footer=_amount(ledger))
        table.add_column("counters", justify="right", footer=_amount(counters))
        table.add_column("")
        for each in sums:
            table.add_row(
                each.team,
                str(each.requests),
                _amount(each.calls_nano_usd),
                _amount(each.ledger_nano_usd),
                _amount(each.counter_nano_usd),
                _verdict(each),
            )
        self._console.print()
        self._console.print(table)
        line = f"Ledger total {decimal_from_nano(ledger)} USD, counters {decimal_from_nano(counters)} USD: "
        if unpriced := sum(each.unpriced for each in sums):
            line += f"{unpriced} calls have no known price; budgets count them at the guard price, the bill waits."
        else:
            line += "[bold green]equal[/], to the nano-dollar." if agree else "[bold red]not equal[/]."
        self._console.print(line, soft_wrap=not self._console.is_terminal)

    def _print_where_next(self) -> None:
        tenant = self._config.teams[self._script.spender or ""].tenant
        url = self._options.functions_url
        self._console.print("\n[bold]Where to look next[/]")
        for what, where in (
            ("all of it as a page", f"{url}/dashboard#/overview?tenant={tenant}"),
            ("budgets now", f"{url}/spend?tenant={tenant}"),
            ("usage by team and model", f"{url}/usage/summary?tenant={tenant}&group_by=team,model"),
            ("this month's statement", f"{url}/chargeback/report?tenant={tenant}&format=html"),
            ("prices in force", f"{url}/models"),
            ("all of it in a terminal", f".venv/bin/tollkeeper --env-file {self._options.env_file} spend"),
            ("change a limit", f"{self._options.config_label}/teams/{self._script.spender}.yaml, then call again"),
            ("how it works", "README.md, docs/"),
        ):
            self._console.print(f"  {what:<24} {where}", markup=False, soft_wrap=True)
        self._console.print()


def _cells(outcome: Outcome) -> tuple[str, ...]:
    state_style = STATE_STYLES.get(outcome.state, "default")
    return (
        str(outcome.number),
        outcome.step.team,
        outcome.step.kind,
        outcome.step.model + (f" -> [dark_orange]{outcome.served_model}[/]" if outcome.decision == "downgrade" else ""),
        f"[{DECISION_STYLES[outcome.decision]}]{DECISION_WORDS[outcome.decision]}[/]",
        "-" if outcome.decision == "refuse" else _amount(outcome.cost_nano_usd),
        f"[{state_style}]{outcome.state or outcome.error or '-'}[/]",
        _amount(nano_from_decimal(outcome.remaining_usd)) if outcome.remaining_usd else "-",
    )


def _verdict(sums: TeamSums) -> str:
    if not sums.agree:
        return "[bold red]NOT EQUAL[/]"
    return f"[yellow]{sums.unpriced} unpriced[/]" if sums.unpriced else "[green]equal[/]"


def _amount(amount_nano_usd: int | None) -> str:
    """USD with all nine decimals, so that columns line up and nothing is rounded away."""
    if amount_nano_usd is None:
        return "unknown"
    return f"{Decimal(amount_nano_usd).scaleb(-9):.9f}"
