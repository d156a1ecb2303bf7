r"""Overlapping clips of one video, encoded together.

A clip takes every k-th frame of a video. Clips whose starts differ by a multiple of k take their frames from the same
*timeline*, such as every second frame:

    timeline     0   2   4   6   8  10  12  14  16      the source frames; odd starts have a timeline of their own
    clip A     [ 0   2   4   6   8  10  12 ]
    clip B         [ 2   4   6   8  10  12  14 ]        a *group*: overlapping clips of one timeline
    clip C             [ 4   6   8  10  12  14  16 ]

    one clip   | left margin |    interior    | right margin |
                 own work      read from the    own work
                 of the clip   timeline         of the clip

The encoder is a chain of *blocks*: the stem and the residual blocks. The first ones, the *shared blocks*, run once on
the timeline. There, the interior of a clip has the values that the clip alone would have. Near both *ends* of a clip,
temporal convolutions see its zero padding; these *margins* grow by one frame with every temporal convolution and are
computed for each clip. A temporal stride keeps every second frame, so clips of even and of odd positions part into
*phases*, each with a timeline of its own. The remaining blocks run clip by clip. How many blocks to share is chosen by
counting operations. Clips that overlap no other stay ungrouped and run as usual.
"""

from .shared_windows import SharedWindows, has_overlapping_clips, windows_of_engine, windows_of_model


__all__ = ["SharedWindows", "has_overlapping_clips", "windows_of_engine", "windows_of_model"]
