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

from karat24.export.quantize import PRESETS, output_range
from karat24.refimpl.errors import KaratError, UsageError
from karat24.refimpl.networks import learnt_ranges, load_weights, without_ranges
from karat24.tomography.imaging.field.samples import TRAINING_KINDS
from karat24.tomography.tiles import TileGrid
from training import data
from training.blending import BlendedFineTune, blocks
from training.fake_quantization import FakeQuantization, Ranges, observed
from training.loop import Schedule, train
from training.magnitudes import MagnitudePenalty
from training.model import FineTune, NamedConvolutions, TomoGAN, Weights
from training.patches import Batches, patches, taught, tiled
from training.perceptual import PerceptualLoss
from training.planting import Planting
from training.storage import stored


def main() -> int:
    """Runs one sub-command; an error is one line."""
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    simulated = commands.add_parser("data", help="simulate training slices")
    simulated.add_argument("--output", type=Path, required=True)
    simulated.add_argument(
        "--samples", type=parse_samples, default=parse_samples("1024x42,512x84,320x120"), metavar="SIZExN,…",
        help="numbers of samples by size, each number distributed over the families (default: %(default)s)",
    )  # fmt: skip
    simulated.add_argument("--crop", type=int, default=256, help="side of the windows kept of each sample")
    simulated.add_argument("--seed", type=int, default=0)
    field = commands.add_parser("field", help="simulate training windows under the conditions of the field")
    field.add_argument("--output", type=Path, required=True)
    field.add_argument("--count", type=int, default=600, help="windows")
    field.add_argument("--crop", type=int, default=256, help="their side")
    field.add_argument("--kinds", nargs="+", default=TRAINING_KINDS, help="of samples (default: all)")
    field.add_argument("--seed", type=int, default=0)
    tomogan = commands.add_parser("tomogan", help="train TomoGAN")
    tomogan.add_argument("--upsampling", choices=("bilinear", "transposed"), default="bilinear")
    tomogan.add_argument(
        "--plant", type=float, metavar="PERIOD", help="add faint patterns of at least this period, pixels"
    )
    tomogan.add_argument("--twins", type=int, default=0, help="patches of a batch that differ by a pattern")
    tomogan.add_argument("--response", type=float, default=0.0, help="weight of the pattern that is missed")
    tomogan.add_argument(
        "--repeated",
        type=float,
        default=0.0,
        help="share of patches whose neighbours are copies",
    )
    tomogan.add_argument(
        "--teacher", type=Path, nargs="+", metavar="F.npz",
        help="weights of TomoGAN whose float output, its mean if there are several, replaces clean slices",
    )  # fmt: skip
    tomogan.add_argument(
        "--margin", type=int, default=0, help="pixels on each side of a patch that only the teacher sees"
    )
    tomogan.add_argument(
        "--tiles", type=int, metavar="SIDE", help="cut every second batch into tiles of this side"
    )
    repair = commands.add_parser("fine-tune", help="train Fine-Tune on the output of the quantized TomoGAN")
    repair.add_argument("--tomogan", type=Path, required=True, help="TomoGAN's weights")
    repair.add_argument("--upsampling", choices=("bilinear", "transposed"), default="bilinear")
    repair.add_argument("--scheme", choices=sorted(PRESETS), default="int8", help="TomoGAN's quantization")
    repair.add_argument(
        "--calibrated", action="store_true", help="calibrate TomoGAN, whatever ranges its weights learnt"
    )
    repair.add_argument("--tile", type=int, default=64, help="side of TomoGAN's tiles")
    repair.add_argument(
        "--teacher", type=Path, metavar="F.npz",
        help="TomoGAN's weights whose float output is the target in place of the clean slices",
    )  # fmt: skip
    overlap = repair.add_mutually_exclusive_group()
    overlap.add_argument("--halo", type=int, default=0, help="pixels by which its tiles overlap on each side")
    overlap.add_argument(
        "--blend", type=int, default=0, help="pixels by which they overlap and are averaged after Fine-Tune"
    )
    selector = commands.add_parser("slice-selector", help="train the slice selector on simulated slices")
    selector.add_argument("--folder", type=Path, required=True, help="slices and weights.npz")
    selector.add_argument("--samples", type=int, default=72, help="distributed over the families")
    selector.add_argument("--size", type=int, default=128, help="of the simulated slices")
    selector.add_argument("--steps", type=int, default=1500)
    selector.add_argument("--seed", type=int, default=0)
    for command in (tomogan, repair):
        command.add_argument(
            "--data", type=Path, required=True, nargs="+",
            help="files made by 'data', or HDF5 with train_ns and train_gt",
        )  # fmt: skip
        command.add_argument("--every", type=int, default=1, metavar="N", help="only use every N-th window")
        command.add_argument("--folder", type=Path, required=True, help="checkpoint, log and weights.npz")
        command.add_argument("--steps", type=int, default=6000)
        command.add_argument("--stop-after", type=int, metavar="STEPS", help="end before the schedule does")
        command.add_argument("--batch", type=int, default=8)
        command.add_argument("--patch", type=int, default=96)
        command.add_argument("--learning-rate", type=float, default=1e-3)
        command.add_argument("--adversarial", type=float, default=0.0, help="weight of the critic's verdict")
        command.add_argument("--adversarial-from", type=int, default=2000, help="first step with the critic")
        command.add_argument("--perceptual", type=float, default=0.0, help="weight of the VGG-19 distance")
        command.add_argument(
            "--magnitude", type=float, default=0.0, help="weight of large activations (not with --aware)"
        )
        command.add_argument("--squared", type=float, default=0.0, help="weight of the mean squared error")
        command.add_argument("--structure", type=float, default=0.0, help="weight of lost faint structure")
        command.add_argument("--structure-scales", type=int, default=1, help="sizes it is looked for at")
        command.add_argument("--similarity", type=float, default=0.2, help="weight of 1 - SSIM beside L1")
        command.add_argument("--vgg", type=Path, help="torchvision's vgg19 weights, for --perceptual")
        command.add_argument("--start-from", type=Path, help="weights to start with, where names agree")
        command.add_argument(
            "--aware",
            choices=("int8", "uint8-2019"),
            help="round to 8 bits as in this scheme (use --start-from)",
        )
        command.add_argument("--ranges", type=Path, help="weight file with the learnt ranges to start with")
        command.add_argument(
            "--narrow",
            type=float,
            default=1.0,
            help="share of the observed ranges to start with, without --ranges",
        )
        command.add_argument("--checkpoint-every", type=int, default=500, metavar="STEPS")
        command.add_argument("--threads", type=int, default=torch.get_num_threads())
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    try:
        if options.command == "data":
            data.simulate(options.samples, options.crop, options.seed, options.output)
        elif options.command == "slice-selector":
            make_slice_selector(options)
        elif options.command == "field":
            data.simulate_field_windows(
                options.count, options.crop, options.seed, options.output, options.kinds
            )
        else:
            make_weights(options)
    except KaratError as error:
        print(f"training {options.command}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def parse_samples(text: str) -> list[tuple[int, int]]:
    """``"1024x42,320x120"`` → sizes and counts."""
    try:
        lots = [tuple(int(part) for part in lot.split("x")) for lot in text.split(",")]
        return [(size, count) for size, count in lots]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list like 1024x42,320x120") from None


def make_weights(options: argparse.Namespace) -> None:
    """Trains one network and writes ``weights.npz`` into its folder."""
    refuse_what_does_not_go_together(options)
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    noisy, clean = (slices[:: options.every] for slices in data.load_all(options.data))
    model, batches, fixed = (tomogan_lesson if options.command == "tomogan" else repair_lesson)(
        options, noisy, clean
    )
    start = load_weights(options.start_from) if options.start_from else None
    if start is not None:
        model.load(start, partly=True)
    schedule = Schedule(
        options.steps,
        options.learning_rate,
        options.adversarial,
        options.adversarial_from,
        perceptual=options.perceptual,
        squared=options.squared,
        similarity=options.similarity,
        structure=options.structure,
        structure_scales=options.structure_scales,
        magnitude=options.magnitude,
        twins=getattr(options, "twins", 0),
        response=getattr(options, "response", 0.0),
        checkpoint_every=options.checkpoint_every,
    )
    perceptual = None
    if options.perceptual:
        if options.vgg is None:
            raise UsageError("--perceptual needs --vgg, the weights of torchvision's vgg19")
        perceptual = PerceptualLoss(options.vgg)
    if options.aware:
        ranges = learnt_ranges(load_weights(options.ranges) if options.ranges else start)
        ranges = ranges or narrowed(observed(model, batches), options.narrow)
        model.rounding = FakeQuantization(ranges, options.aware == "int8", fixed)
    elif options.magnitude:
        model.rounding = MagnitudePenalty()
    device = torch.device(options.device)
    model = train(model, batches, schedule, options.folder, device, perceptual, options.stop_after)
    np.savez_compressed(options.folder / "weights.npz", **stored(model))
    print(f"wrote {options.folder / 'weights.npz'}")


def refuse_what_does_not_go_together(options: argparse.Namespace) -> None:
    """Raises UsageError for options of 'tomogan' or 'fine-tune' that make no sense, alone or together."""
    if options.every < 1:
        raise UsageError(f"--every is {options.every}; at least 1 is needed")
    if options.narrow <= 0:
        raise UsageError(f"--narrow is {options.narrow}; it is a share, above 0")
    if options.magnitude and options.aware:
        raise UsageError("--magnitude is for float networks; --aware learns ranges of its own")
    if options.ranges and not options.aware:
        raise UsageError("--ranges needs --aware")
    if options.command != "tomogan":
        return
    if options.response and not options.twins:
        raise UsageError("--response needs --twins, the patches whose patterns are looked for")
    if options.margin and not options.teacher:
        raise UsageError("--margin needs --teacher, which sees it")
    if not 0 <= 2 * options.margin < options.patch:
        raise UsageError(
            f"--margin is {options.margin}; 0 to {(options.patch - 1) // 2} leave something of a patch"
        )
    side = options.patch - 2 * options.margin
    if options.tiles is not None and (options.tiles < 1 or side % options.tiles):
        raise UsageError(f"--tiles is {options.tiles}; patches of {side} pixels are no whole number of them")
    if options.tiles and options.twins:
        raise UsageError("--tiles cuts patches up, and --twins compares whole ones: give one of them")


def narrowed(ranges: Ranges, share: float) -> Ranges:
    """Ranges whose ends are this share of the given ones: rare values are clipped, others rounded finer."""
    return {name: (share * low, share * high) for name, (low, high) in ranges.items()}


def make_slice_selector(options: argparse.Namespace) -> None:
    """Trains the slice selector and writes ``weights.npz`` into its folder."""
    from training.slice_selector import observed_ranges, stacks, train_selector

    torch.set_num_threads(1)
    slices = stacks(options.samples, options.size, options.seed, options.folder / "slices.npz")
    model = train_selector(slices, options.steps, options.seed)
    path = options.folder / "weights.npz"
    np.savez_compressed(path, **stored(model))
    np.savez_compressed(path, **stored(model), **observed_ranges(load_weights(path)))
    print(f"wrote {path}")


Lesson = tuple[NamedConvolutions, Batches, dict[str, tuple[float, float]]]
"""A network, batches of its inputs with their targets, and fixed ranges."""


def tomogan_lesson(options: argparse.Namespace, noisy: data.Float, clean: data.Float) -> Lesson:
    """TomoGAN, and patches of noisy slices with the clean slices or a teacher's output as targets."""
    model = TomoGAN(options.upsampling)
    planting = Planting(options.seed, options.plant) if options.plant is not None else None
    batches = patches(
        noisy, clean, options.patch, options.batch, options.seed,
        planting=planting, repeated=options.repeated, twins=options.twins,
    )  # fmt: skip
    if options.teacher:
        batches = taught(
            batches, [network_of(load_weights(path)) for path in options.teacher], options.margin
        )
    if options.tiles is not None:
        batches = tiled(batches, options.tiles)
    return model, batches, {}


def network_of(weights: Weights) -> TomoGAN:
    """TomoGAN with these weights, and the upsampling that they belong to."""
    model = TomoGAN("transposed" if "up1/upsample/filter" in weights else "bilinear")
    model.load(weights)
    return model


def repair_lesson(options: argparse.Namespace, noisy: data.Float, clean: data.Float) -> Lesson:
    """Fine-Tune, and the quantized TomoGAN's output for noisy slices; the range of its input is fixed."""
    from training.repair import quantized_tomogan, restored_by_oracle, restored_in_float, tiles_by_oracle

    weights = load_weights(options.tomogan)
    if options.calibrated:
        weights = without_ranges(weights)
    quantized = quantized_tomogan(weights, options.upsampling, options.scheme, options.tile)
    fixed = {"input": output_range(quantized)}
    if options.teacher:
        clean = restored_in_float(noisy, load_weights(options.teacher), options.upsampling)
    if options.blend:
        grid = TileGrid(*clean.shape[1:], options.tile, options.tile, blend=options.blend)
        tiles = tiles_by_oracle(noisy, quantized, grid)
        model = BlendedFineTune(options.tile - options.blend)
        return model, blocks(tiles, clean, grid, options.batch, options.seed), fixed
    restored = restored_by_oracle(noisy, quantized, options.halo)
    # Restored values lie on the grid of 8 bits; varying the brightness would move them off it.
    batches = patches(restored, clean, options.patch, options.batch, options.seed, vary_grey=False)
    return FineTune(), batches, fixed


if __name__ == "__main__":
    sys.exit(main())
