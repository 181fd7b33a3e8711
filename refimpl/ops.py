"""The table of ops. Adding one: a file in ``refimpl/spec``, a line here, a reader and writer
line per format, a test, optionally a kernel in ``refimpl/kernels``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from refimpl.contract import Op
from refimpl.spec import (
    arg_max,
    broadcast_to,
    depth_to_space,
    gather,
    minimum,
    mirror_pad,
    pack,
    pad,
    reshape,
    reverse_v2,
    shape,
    split,
    strided_slice,
    tile,
    transpose,
)
from refimpl.spec import slice as slice_box

OPS: Mapping[str, Op] = MappingProxyType(
    {
        "ARG_MAX": Op(arg_max.check_arg_max, arg_max.arg_max),
        "ARG_MIN": Op(arg_max.check_arg_max, arg_max.arg_min),
        "BROADCAST_TO": Op(broadcast_to.check_broadcast_to, broadcast_to.broadcast_to),
        "DEPTH_TO_SPACE": Op(depth_to_space.check_depth_to_space, depth_to_space.depth_to_space),
        "EXPAND_DIMS": Op(reshape.check_expand_dims, reshape.same_values),
        "FILL": Op(broadcast_to.check_fill, broadcast_to.fill),
        "GATHER": Op(gather.check_gather, gather.gather),
        "MAXIMUM": Op(minimum.check_minimum, minimum.maximum),
        "MINIMUM": Op(minimum.check_minimum, minimum.minimum),
        "MIRROR_PAD": Op(mirror_pad.check_mirror_pad, mirror_pad.mirror_pad),
        "PACK": Op(pack.check_pack, pack.pack),
        "PAD": Op(pad.check_pad, pad.pad),
        "PADV2": Op(pad.check_padv2, pad.padv2),
        "RANK": Op(shape.check_rank, shape.rank),
        "RESHAPE": Op(reshape.check_reshape, reshape.reshape),
        "REVERSE_V2": Op(reverse_v2.check_reverse_v2, reverse_v2.reverse_v2),
        "SHAPE": Op(shape.check_shape, shape.shape),
        "SLICE": Op(slice_box.check_slice, slice_box.slice_),
        "SPACE_TO_DEPTH": Op(depth_to_space.check_space_to_depth, depth_to_space.space_to_depth),
        "SPLIT": Op(split.check_split, split.split),
        "SPLIT_V": Op(split.check_split_v, split.split_v),
        "SQUEEZE": Op(reshape.check_squeeze, reshape.same_values),
        "STRIDED_SLICE": Op(strided_slice.check_strided_slice, strided_slice.strided_slice),
        "TILE": Op(tile.check_tile, tile.tile),
        "TRANSPOSE": Op(transpose.check_transpose, transpose.transpose),
        "UNPACK": Op(pack.check_unpack, pack.unpack),
    }
)
"""Op name, in its format's own words, to the check and slow spec that define it."""
