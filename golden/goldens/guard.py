"""What must be equal before a golden is compared with anything: where its values come from."""

from __future__ import annotations

from karat24.golden.goldens.manifest import ORACLE, Golden, Producer
from karat24.refimpl.errors import CannotCompare


def require_model(golden: Golden, where: str, model_sha256: str) -> None:
    """Raises CannotCompare unless the golden at ``where`` is of the model with this SHA-256."""
    if golden.model.sha256 != model_sha256:
        raise CannotCompare(
            f"{where}: stale: recorded of {golden.model.path} with SHA-256 {golden.model.sha256[:16]}, and "
            f"the model has {model_sha256[:16]} now; `karat24 golden accept` shows what that changes"
        )


def require_comparable(
    golden: Golden, where: str, model_sha256: str, input_sha256: str, profile: str, name: str, runtime: str
) -> None:
    """Raises CannotCompare unless model, input, profile and runtime are those of the golden at ``where``.

    ``name`` says what computes now (the oracle, a delegate or a recording), ``runtime`` its library and
    version. Another runtime is comparable when both are held to one profile.
    """
    require_model(golden, where, model_sha256)
    if golden.input.sha256 != input_sha256:
        raise CannotCompare(
            f"{where}: recorded for input values with SHA-256 {golden.input.sha256[:16]}, and those given "
            f"have {input_sha256[:16]}; give the recorded ones"
        )
    if golden.profile != profile:
        raise CannotCompare(
            f"{where}: recorded under profile {golden.profile or 'none'}, and {name} is held to "
            f"{profile or 'none'}; record a golden under that profile, too"
        )
    if not profile and name != golden.producer.name and name != "recording":
        raise CannotCompare(
            f"{where}: recorded by {golden.producer.name}, which no profile describes: {name} cannot be "
            f"compared with it, only {golden.producer.name}"
        )
    if name == golden.producer.name != ORACLE and golden.producer.runtime != runtime:
        raise CannotCompare(
            f"{where}: recorded with {golden.producer.runtime}, and {runtime} is here; install that version, "
            "or accept what this one gives"
        )


def require_machine(golden: Golden, producer: Producer) -> str:
    """Why values whose bits depend on the machine cannot be compared; '' where they can."""
    recorded = golden.producer.machine
    if not recorded or producer.name == "recording" or recorded == producer.machine:
        return ""
    if not producer.machine and producer.name != golden.producer.name:
        return (
            f"no document fixes these bits: only {golden.producer.name} on the recording machine can be "
            f"compared with them, and {producer.name} ran"
        )
    other = [f"{key} {value}, here {producer.machine.get(key, 'unknown')}" for key, value in recorded.items()
             if producer.machine.get(key) != value]  # fmt: skip
    return f"no document fixes these bits, and the golden was recorded on another machine: {'; '.join(other)}"
