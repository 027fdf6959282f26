"""What a report says of bistable and synchronous neurons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snnconvert.report.wording import clean, percent, plural, share


def ablation_text(document: Mapping[str, Any]) -> str | None:
    """What both neurons are worth in two sentences; None without an ablation."""
    section = document.get("ablation")
    if not section:
        return None
    if not section["images"]:
        return f"Figures without bistable and synchronous neurons are left out: {clean(section['left_out'])}."
    seen = f"on {plural(section['images'], 'image')} at T = {section['timesteps']}"
    told = []
    if section["layers"]:
        fired = {key: mean_share(section, key, "neurons") for key in ("before", "after")}
        against = {key: mean_share(section, key, "unprovoked") for key in ("before", "after")}
        told.append(
            f"Of all neurons {share(fired['after'], 2)} fire although the original network's are silent (in streaming "
            f"integrate-and-fire {share(fired['before'], 2)}), {share(against['after'], 2)} although their own input "
            f"is not above zero ({share(against['before'], 2)}), {seen}."
        )
    kind, arms = measure(section), section["arms"]
    others = [f"{arm_name(arm)} {percent(arm[kind])}" for arm in arms[1:]]
    told.append(f"{kind.capitalize()} there: {arm_name(arms[0])} {percent(arms[0][kind])}; {'; '.join(others)}.")
    if section["left_out"]:
        told.append(f"Other arms are left out: {clean(section['left_out'])}.")
    return " ".join(told)


def measure(section: Mapping[str, Any]) -> str:
    """What arms are compared by: accuracy, or agreement where there are no labels."""
    return "agreement" if any(arm["accuracy"] is None for arm in section["arms"]) else "accuracy"


def arm_name(arm: Mapping[str, Any]) -> str:
    """`plain phase coding and synchronous neurons`, or without the latter `plain phase coding alone`."""
    return f"{clean(arm['neurons'])} {'and synchronous neurons' if arm['synchronous'] else 'alone'}"


def mean_share(section: Mapping[str, Any], when: str, what: str) -> float | None:
    """A share over all layers, each neuron counting alike."""
    neurons = sum(layer["neurons"] for layer in section["layers"])
    found = sum(layer["neurons"] * layer[when][what] for layer in section["layers"])
    return found / neurons if neurons else None
