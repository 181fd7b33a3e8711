"""What is different between two goldens of one case, a line for each thing."""

from __future__ import annotations

from dataclasses import fields

from karat24.golden.goldens.manifest import Golden, GoldenTensor


def changes(old: Golden | None, new: Golden) -> list[str]:
    """What accepting ``new`` in place of ``old`` changes; [] for nothing, one line for a first golden."""
    if old is None:
        return [f"a new golden: {len(new.tensors)} tensors, {len(new.outputs)} outputs"]
    lines = []
    for what, before, after in (
        ("model", f"{old.model.path} {old.model.sha256[:16]}", f"{new.model.path} {new.model.sha256[:16]}"),
        ("input", _input(old), _input(new)),
        ("profile", old.profile, new.profile),
        (
            "producer",
            f"{old.producer.name} {old.producer.runtime}",
            f"{new.producer.name} {new.producer.runtime}",
        ),
        ("machine", _machine(old), _machine(new)),
        ("arrays", old.arrays, new.arrays),
    ):
        if before != after:
            lines.append(f"{what}: {before.strip() or 'none'} -> {after.strip() or 'none'}")
    before_by = {(tensor.layer, tensor.tensor): tensor for tensor in old.tensors}
    after_by = {(tensor.layer, tensor.tensor): tensor for tensor in new.tensors}
    lines += [f"{_label(before_by[key])}: gone" for key in before_by if key not in after_by]
    for key, after_tensor in after_by.items():
        if key not in before_by:
            lines.append(f"{_label(after_tensor)}: new")
        elif changed := _changed(before_by[key], after_tensor):
            lines.append(f"{_label(after_tensor)}: {changed}")
    for index in sorted({*old.outputs, *new.outputs}):
        digests = old.outputs.get(index, "none")[:16], new.outputs.get(index, "none")[:16]
        if digests[0] != digests[1]:
            lines.append(f"output, tensor {index}: sha256 {digests[0]} -> {digests[1]}")
    return lines


def _changed(old: GoldenTensor, new: GoldenTensor) -> str:
    pairs = []
    for field in fields(GoldenTensor):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before != after:
            if field.name == "sha256":
                before, after = before[:16] or "none", after[:16] or "none"
            pairs.append(f"{field.name} {before} -> {after}")
    return ", ".join(pairs)


def _label(tensor: GoldenTensor) -> str:
    return f"layer {tensor.layer} ({tensor.op}) {tensor.name!r}"


def _input(golden: Golden) -> str:
    source = f"seed {golden.input.seed}" if golden.input.seed is not None else " ".join(golden.input.files)
    return f"{source} {golden.input.sha256[:16]}"


def _producer(golden: Golden) -> str:
    return f"{golden.producer.name} {golden.producer.runtime}"


def _machine(golden: Golden) -> str:
    return " ".join(golden.producer.machine.values())
