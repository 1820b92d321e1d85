"""A profile as one HTML file that asks the network for nothing."""

from collections import Counter
from collections.abc import Iterable
from html import escape
from importlib.resources import files

from bigvit_edge import pages
from bigvit_edge.machine import describe
from bigvit_edge.pages import write_list, write_section, write_table
from bigvit_edge.profile.charts import (
    colour,
    draw_histogram,
    draw_roofline,
    draw_routing,
    draw_shares,
    draw_waterfall,
    write_ms,
)
from bigvit_edge.profile.records import Op, Profile, Traced
from bigvit_edge.profile.summary import (
    find_peak,
    list_slowest,
    measure_cost,
    place_layers,
    sum_by_kind,
    sum_by_role,
)
from bigvit_edge.results import describe_times

SLOWEST, ROLES, LONG = 12, 12, 60  # ops and parts in the tables; letters of a name
KEYS = (
    ("multiplying", "multiplying matrices"), ("moving", "moving, routing, rounding"), ("rest", "all else")
)  # fmt: skip


def write_page(profile: Profile) -> str:
    """Write a profile as a self-contained HTML page."""
    title = f"{profile.file} on {profile.device}"
    parts = [_write_head(profile)]
    latency = write_section("Latency", draw_histogram(profile.latency_ms))
    if profile.traced is not None:
        shares = sum_by_kind(profile.traced)
        used = {colour(share.name) for share in shares}
        kinds = draw_shares(shares) + _write_keys(key for key in KEYS if key[0] in used)
        parts += [_pair(latency, write_section("Time by kind of op", kinds)), _write_layers(profile.traced)]
        parts += [_write_roof(profile, profile.traced), _write_slowest(profile.traced)]
    else:
        parts.append(latency)
    parts += [_write_routing(profile), _write_fallbacks(profile), _write_counts(profile), _write_device(profile)]
    notes = [*profile.notes, *(profile.traced.notes if profile.traced else ())]
    if notes:
        parts.append(write_section("What to know of these figures", write_list(notes)))
    return pages.write_page(title, parts, (files("bigvit_edge.profile") / "page.css").read_text(encoding="utf-8"))


def _write_head(profile: Profile) -> str:
    facts = [profile.runtime, profile.precision, f"keep {profile.keep:g}" if profile.keep else ""]
    facts += [f"{profile.threads} thread{'s' if profile.threads > 1 else ''}", f"device {profile.device}"]
    times = describe_times(profile.latency_ms)
    tiles = [(write_ms(ms), name) for name, ms in (("p50", times.p50), ("p90", times.p90), ("p99", times.p99))]
    cost = measure_cost(profile)
    if profile.traced is not None and cost is not None:
        total = sum(profile.traced.sum_by_op())
        runs = len(profile.traced.runs)
        tiles.append((f"{total:.3g} ms", f"all ops together, medians of {runs} traced runs"))
        tiles.append((f"{cost * 100:+.1f} %", "what tracing adds to the fastest run"))
    drawn = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>' for value, what in tiles
    )
    line = escape(" · ".join(fact for fact in facts if fact))
    return (
        f"<h1>{escape(profile.file)}</h1><p class='quiet'>{line}</p>"
        f"<p class='quiet'>Image: {escape(profile.image)}</p><div class='tiles'>{drawn}</div>"
    )


def _write_layers(traced: Traced) -> str:
    bars, run_ms = place_layers(traced)
    lanes = {bar.lane for bar in bars} - {""}
    keys = _write_keys((("multiplying", "big lane"), ("moving", "LITTLE lane"))) if len(lanes) > 1 else ""
    said = (
        f"The traced run of median length, {write_ms(run_ms)}: each layer from its first op's start to its last op's "
        "end; at the right, the time of its ops, all threads' together."
    )
    return write_section("Layers", f"<p class='quiet'>{said}</p>{keys}{draw_waterfall(bars, run_ms)}")


def _write_roof(profile: Profile, traced: Traced) -> str:
    roles = sum_by_role(traced)[:ROLES]
    if profile.roof is None or not roles:
        return write_section(
            "Roof", "<p>The runtime tells nothing of its ops' arithmetic, or their time is too short.</p>"
        )
    roof = profile.roof
    rows = [
        (f"{number} {_shorten(role.name)}", f"{role.ms:.3f}", f"{role.intensity:.3g}", f"{role.rate:.3g}",
         f"{role.rate / find_peak(roof, role.type):.0%}")
        for number, role in enumerate(roles, 1)
    ]  # fmt: skip
    table = write_table(("part", "ms", "MAC/byte", "GMAC/s", "of peak"), rows, numbers=4)
    macs = sum(op.macs or 0 for op in traced.ops)
    said = (
        f"<p class='quiet'>{macs / 1e6:,.1f} million multiply-accumulates a run. The parts that take longest, each "
        "summed over the layers; bytes are weights and activations, each read and written once.</p>"
    )
    return write_section("Roof", said + _pair(draw_roofline(roles, roof), table))


def _write_slowest(traced: Traced) -> str:
    def cells(op: Op, ms: float, share: float) -> tuple[str, ...]:
        return _shorten(op.name), op.kind, op.unit, f"{ms:.3f}", f"{share:.1%}"

    rows = [cells(op, share.ms, share.share) for op, share in list_slowest(traced, SLOWEST)]
    return write_section(
        f"The {len(rows)} slowest of {len(traced.ops)} ops",
        write_table(("op", "kind", "run by", "ms", "share"), rows, 2),
    )


def _write_routing(profile: Profile) -> str:
    name = "What the big path sees"
    if profile.routing is None:
        return write_section(name, f"<p>Not shown: {escape(profile.unrouted)}.</p>")
    said = "<p class='quiet'>Each layer's selected patches in their light, the others dark.</p>"
    return write_section(name, said + draw_routing(profile.routing))


def _write_fallbacks(profile: Profile) -> str:
    if profile.leftovers is None:
        return write_section(
            "Fallbacks", "<p>Not known: the file is no part of a bundle, whose manifest would say.</p>"
        )
    if not profile.leftovers:
        return write_section("Fallbacks", "<p>None: the whole model is run by the unit that it is meant for.</p>")
    grouped = Counter((each.op, each.reason) for each in profile.leftovers)
    shares = {key: sum(x.mac_share for x in profile.leftovers if (x.op, x.reason) == key) for key in grouped}
    rows = [(op, reason, str(count), f"{shares[op, reason]:.1%}") for (op, reason), count in grouped.most_common()]
    return write_section(
        "Fallbacks", write_table(("op", "why it is not delegated", "times", "of the MACs"), rows, numbers=2)
    )


def _write_counts(profile: Profile) -> str:
    rows, missing = [], dict[str, list[str]]()
    for count in profile.counts:
        event = f"{count.event}, {count.pmu}" if count.pmu else count.event
        if count.count is None:
            missing.setdefault(count.missing, []).append(event)
        else:
            shared = "" if count.running == 1 else f"counted {count.running:.0%} of the time"
            rows.append((event, f"{count.count:,.0f}", shared))
    said = "<p class='quiet'>The kernel's counters, in user space, of a run without tracing.</p>"
    table = write_table(("event", "a run", ""), rows, numbers=1, after=1) if rows else ""
    return write_section(
        "Counters", said + table + write_list(f"{', '.join(e)}: not available: {w}" for w, e in missing.items())
    )


def _write_device(profile: Profile) -> str:
    machine = profile.machine
    facts = [describe(machine)]
    governors = sorted({core.governor for core in machine.cores if core.governor})
    facts += [f"governor: {', '.join(governors)}"] if governors else []
    clocks = [core.current_khz for core in machine.cores if core.current_khz]
    facts += [f"clocks asked for: {min(clocks) / 1e6:.2f} to {max(clocks) / 1e6:.2f} GHz"] if clocks else []
    quota = machine.limits.quota_cores
    facts += [f"a quota of {quota:g} cores"] if quota is not None else []
    command = f"<p>Made by</p><pre>{escape(profile.command)}</pre>"
    return write_section("Device and command", write_list(facts) + command)


def _pair(left: str, right: str) -> str:
    return f'<div class="pair"><div>{left}</div><div>{right}</div></div>'


def _write_keys(keys: Iterable[tuple[str, str]]) -> str:
    spans = "".join(f'<span class="key {name}"></span>{escape(what)}' for name, what in keys)
    return f'<p class="quiet">{spans}</p>'


def _shorten(name: str) -> str:
    return name if len(name) <= LONG else f"{name[: LONG - 1]}…"
