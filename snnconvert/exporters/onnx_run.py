"""Exported ONNX files in onnxruntime, as their users run them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from snnconvert.exporters.onnx_file import CLOCK, COUNTS, KEY, LENGTH
from snnconvert.exporters.task import Reader, Recording, Task, Written


def read_onnx(task: Task, written: Written) -> Reader:
    """What runs a file of `onnx_file.write_onnx`; steps are fed by hand, as a program of a user's would."""
    session = onnxruntime.InferenceSession(str(written.files[0]), providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map[KEY])
    return {"step": _steps, "window": _steps, "loop": _loop, "ann": _once}[task.form](session, facts)


def _steps(session: Any, facts: dict[str, Any]) -> Reader:
    states, timed = facts.get("states", {}), any(one.name == CLOCK for one in session.get_inputs())
    count = facts["length"] if states else 1
    wanted = [facts["output"], *facts["spikes"].values(), *(f"{name}/next" for name in states)]

    def run(batch: Tensor) -> Recording:
        feeds = {facts["input"]: batch.float().numpy()}
        feeds |= {name: np.zeros((len(batch), *shape), np.float32) for name, shape in states.items()}
        sums, total = list[Tensor](), torch.zeros(())
        spikes: dict[str, list[Tensor]] = {site: [] for site in facts["spikes"]}
        for step in range(count):
            if timed:
                feeds[CLOCK] = np.array(step, np.int64)
            found = dict(zip(wanted, session.run(wanted, feeds), strict=True))
            feeds |= {name: found[f"{name}/next"] for name in states}
            total = total + torch.from_numpy(found[facts["output"]]).double()
            sums.append(total)
            for site, name in facts["spikes"].items():
                spikes[site].append(torch.from_numpy(found[name]).to(torch.int16))
        by_frame = {site: torch.stack(each) for site, each in spikes.items()}
        if len(sums) > facts["frames"]:  # sites that wait are silent before and after their frames
            by_frame = {site: each.sum(0, keepdim=True) for site, each in by_frame.items()}
        return Recording(by_frame, torch.stack(sums[-1:]))

    return run


def _once(session: Any, facts: dict[str, Any]) -> Reader:
    def run(batch: Tensor) -> Recording:
        (output,) = session.run([facts["output"]], {facts["input"]: batch.float().numpy()})
        return Recording({}, torch.from_numpy(output[None]))

    return run


def _loop(session: Any, facts: dict[str, Any]) -> Reader:
    length, read = facts["length"], facts["frames"] - facts["read_from"]

    def run(batch: Tensor) -> Recording:
        given = {facts["input"]: batch.float().numpy(), LENGTH: np.array(length, np.int64)}
        output, counts = session.run([facts["output"], COUNTS], given)
        spikes = {site: torch.from_numpy(counts[None, :, index]) for index, site in enumerate(facts["spikes"])}
        return Recording(spikes, torch.from_numpy(output[None]).double() * read)

    return run
