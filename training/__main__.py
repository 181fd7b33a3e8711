"""``python -m training``: simulate slices, train TomoGAN, train Fine-Tune, write weight files.

    python -m training data --output work/train.npz
    python -m training tomogan --data work/train.npz --upsampling bilinear --folder work/bilinear
    python -m training fine-tune --data work/train.npz \\
        --tomogan work/bilinear/weights.npz --folder work/repair

The exact commands behind the shipped weights stand beside them, in
``refimpl/networks/trained/README.md``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from refimpl.errors import KaratError, UsageError
from training.loop import Schedule, train
from training.model import FineTune, NamedConvolutions, TomoGAN
from training.patches import patches


def main() -> int:
    """Runs one sub-command; an error is one line."""
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="simulate training slices")
    data.add_argument("--output", type=Path, required=True)
    data.add_argument("--samples", type=int, default=120, help="samples, shared out over the families")
    data.add_argument("--size", type=int, default=384)
    data.add_argument("--seed", type=int, default=0)
    tomogan = commands.add_parser("tomogan", help="train TomoGAN")
    tomogan.add_argument("--upsampling", choices=("bilinear", "transposed"), default="bilinear")
    repair = commands.add_parser("fine-tune", help="train Fine-Tune on what the quantized TomoGAN makes")
    repair.add_argument("--tomogan", type=Path, required=True, help="TomoGAN's weights")
    repair.add_argument("--upsampling", choices=("bilinear", "transposed"), default="bilinear")
    repair.add_argument("--scheme", default="int8", help="quantization scheme of TomoGAN")
    for command in (tomogan, repair):
        command.add_argument("--data", type=Path, required=True, help="file made by 'data'")
        command.add_argument("--folder", type=Path, required=True, help="checkpoint, log and weights.npz")
        command.add_argument("--steps", type=int, default=6000)
        command.add_argument("--batch", type=int, default=8)
        command.add_argument("--patch", type=int, default=96)
        command.add_argument("--learning-rate", type=float, default=1e-3)
        command.add_argument("--adversarial", type=float, default=0.0, help="weight of the critic's verdict")
        command.add_argument("--adversarial-from", type=int, default=1000)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    try:
        if options.command == "data":
            make_data(options)
        else:
            make_weights(options)
    except KaratError as error:
        print(f"training {options.command}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def make_data(options: argparse.Namespace) -> None:
    """Simulates ``samples`` windows of three slices, the families in turn."""
    from karat.imaging.families import TRAINING_FAMILIES
    from karat.imaging.simulate import simulate_slices

    noisy, clean = [], []
    for number in range(options.samples):
        family = TRAINING_FAMILIES[number % len(TRAINING_FAMILIES)]
        # Calibration takes the seeds from 100 up to 1000; training starts above.
        seed = 1000 + options.seed + number // len(TRAINING_FAMILIES)
        scan = simulate_slices(family, options.size, seed, vary_grey=True)
        noisy.append(scan.noisy[0].astype(np.float16))
        clean.append(scan.clean[0].astype(np.float16))
        if (number + 1) % 10 == 0:
            print(f"{number + 1}/{options.samples} samples", flush=True)
    np.savez(options.output, noisy=np.stack(noisy), clean=np.stack(clean))


def load_data(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """``noisy [slice, y, x, 3]`` and ``clean [slice, y, x]``, float32. Raises UsageError."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            noisy, clean = archive["noisy"].astype(np.float32), archive["clean"].astype(np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"{path}: no training data ({error}); make it with 'python -m training data'"
        ) from error
    if not (np.isfinite(noisy).all() and np.isfinite(clean).all()):
        raise UsageError(f"{path}: holds NaN or infinity")
    return noisy, clean


def make_weights(options: argparse.Namespace) -> None:
    """Trains one network and writes ``weights.npz`` into its folder."""
    torch.manual_seed(options.seed)
    noisy, clean = load_data(options.data)
    model: NamedConvolutions
    if options.command == "tomogan":
        model = TomoGAN(options.upsampling)
    else:
        from training.repair import restored_by_oracle

        model = FineTune()
        noisy = restored_by_oracle(noisy, options.tomogan, options.upsampling, options.scheme)
    schedule = Schedule(options.steps, options.learning_rate, options.adversarial, options.adversarial_from)
    batches = patches(noisy, clean, options.patch, options.batch, options.seed)
    model = train(model, batches, schedule, options.folder, torch.device(options.device))
    np.savez(options.folder / "weights.npz", **model.weights())
    print(f"wrote {options.folder / 'weights.npz'}")


if __name__ == "__main__":
    sys.exit(main())
