"""The cardiac cycle: beats, contraction of the ventricle and opening of the valves."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from .anatomy import smoothstep
from .parameters import fixed_parameter, parameter


__all__ = ["CardiacMotion", "MotionParameters", "Rhythm", "simulate_cardiac_motion"]

Rhythm = Literal["sinus", "atrial_fibrillation", "premature_beats", "pauses"]


@dataclasses.dataclass(frozen=True)
class MotionParameters:
    """Rhythm and timing of one clip; each field's metadata holds its range and unit."""

    heart_rate: float = parameter(45.0, 130.0, "1/min", "mean heart rate")
    systolic_interval: float = parameter(0.30, 0.37, "s", "end diastole to end systole at 60 beats a minute")
    early_filling_time: float = parameter(0.14, 0.24, "s", "duration of the early filling at 60 beats a minute")
    early_filling_share: float = parameter(0.50, 0.85, "", "share of the filling that comes early")
    beat_variation: float = parameter(0.01, 0.05, "", "sd of the beat length over its mean, in sinus rhythm")
    breathing_amplitude: float = parameter(1.0, 6.0, "mm", "movement of the heart with breathing")
    breathing_rate: float = parameter(10.0, 22.0, "1/min", "respiratory rate")
    systolic_skew: float = fixed_parameter(0.0, "", "above 0 the ventricle ejects early in systole, below 0 late")
    leaflet_swing: float = fixed_parameter(1.0, "", "opening of the leaflets over the usual one")
    dyssynchrony: float = fixed_parameter(
        0.0, "", "how far the septal side runs ahead (below 0: behind) of the lateral side within a contraction"
    )
    probe_sway: float = fixed_parameter(0.0, "mm", "slow movement of the probe over the chest")
    rhythm: Rhythm = "sinus"


@dataclasses.dataclass(frozen=True)
class CardiacMotion:
    """State of the heart at every frame of a clip."""

    contraction: np.ndarray  # (frames,), 0 at end diastole and 1 at end systole of the traced beat
    # (frames,), contraction by which a leading side of the ventricle is ahead of the mean, and a lagging one behind;
    # 0 at end diastole and at end systole
    lead: np.ndarray
    mitral_opening: np.ndarray  # (frames,), 0 closed and 1 wide open; the tricuspid valve follows it
    drift: np.ndarray  # (frames, 2), lateral and axial movement of the whole heart in mm
    end_diastolic_frame: int  # the contraction is exactly 0 here
    end_systolic_frame: int  # the contraction is exactly 1 here
    beat_starts: np.ndarray  # end diastoles in frames, fractional, before and after the clip too


def _beat_lengths(parameters: MotionParameters, count: int, rng: np.random.Generator) -> np.ndarray:
    mean_length = 60 / parameters.heart_rate
    variation = 0.2 if parameters.rhythm == "atrial_fibrillation" else parameters.beat_variation
    lengths = mean_length * np.clip(1 + variation * rng.standard_normal(count), 0.6, 1.6)
    premature = rng.random(count) < 0.2
    if parameters.rhythm == "premature_beats":
        for beat in np.flatnonzero(premature[:-1] & ~np.roll(premature, 1)[:-1]):
            lengths[beat], lengths[beat + 1] = 0.62 * mean_length, 1.38 * mean_length
    elif parameters.rhythm == "pauses":
        lengths[premature] *= 1.9
    return lengths


def _beat_strengths(parameters: MotionParameters, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Peak contraction of each beat: a beat after a short filling time ejects less."""
    mean_length = 60 / parameters.heart_rate
    preceding = np.concatenate([[mean_length], lengths[:-1]]) / mean_length
    return np.clip(1 + 0.25 * np.minimum(preceding - 1, 0.1) + 0.015 * rng.standard_normal(len(lengths)), 0.7, 1.05)


def simulate_cardiac_motion(
    parameters: MotionParameters, num_frames: int, fps: float, rng: np.random.Generator
) -> CardiacMotion:
    """Simulate the beats of a clip, of which one traced beat has its end diastole and end systole on frames.

    Systole shortens less than diastole as the heart rate rises (Weissler et al., Circulation 1968). Filling has an
    early wave, a pause and an atrial wave, which merge at high rates; in atrial fibrillation there is no atrial wave.
    """
    mean_length = 60 / parameters.heart_rate
    systole = min(parameters.systolic_interval * mean_length**0.4, 0.55 * mean_length)
    systole_frames = max(round(systole * fps), 2)
    if systole_frames + 2 > num_frames:
        raise ValueError(
            f"a clip of {num_frames} frames at {fps} fps cannot hold one systole of {systole:.2f} s: "
            "use more frames, a lower frame rate or a higher heart rate"
        )
    beats_around = int(np.ceil(num_frames / fps / mean_length / 0.6)) + 2
    lengths = _beat_lengths(parameters, 2 * beats_around + 1, rng)
    strengths = _beat_strengths(parameters, lengths, rng)
    # the traced beat is a regular one: the middle of the list, aligned so that its extremes fall on frames
    traced = beats_around
    lengths[traced] = max(mean_length, 1.6 * systole)
    strengths[traced] = 1.0
    latest_start = num_frames - systole_frames - 1
    end_diastolic_frame = int(rng.integers(0, latest_start + 1))
    starts = np.concatenate([[0.0], np.cumsum(lengths)])
    starts = starts - starts[traced] + end_diastolic_frame / fps

    time = np.arange(num_frames) / fps
    beat = np.clip(np.searchsorted(starts, time + 1e-9, side="right") - 1, 0, len(lengths) - 1)
    within, length = time - starts[beat], lengths[beat]
    ejection_time = np.where(beat == traced, systole_frames / fps, np.minimum(systole, 0.6 * length))
    diastole = length - ejection_time
    early = np.minimum(parameters.early_filling_time * mean_length**0.3, 0.6 * diastole)
    relaxation = np.minimum(0.04, 0.1 * diastole)
    atrial = np.minimum(0.14, 0.4 * diastole)
    early_share = 1.0 if parameters.rhythm == "atrial_fibrillation" else parameters.early_filling_share
    ejected = smoothstep(np.clip(within / ejection_time, 0, 1) ** 2.0**-parameters.systolic_skew)
    filled_early = smoothstep((within - ejection_time - relaxation) / early)
    filled_late = smoothstep((within - length + atrial) / atrial)
    contraction = strengths[beat] * (ejected - early_share * filled_early - (1 - early_share) * filled_late)

    # what contracts first also relaxes first: ahead in systole, behind in diastole
    rising = np.where(within <= ejection_time, 1.0, -1.0)

    in_diastole = within > ejection_time + 0.5 * relaxation
    early_wave = np.exp(-(((within - ejection_time - relaxation - 0.45 * early) / (0.55 * early)) ** 2))
    atrial_wave = (early_share < 1) * np.exp(-(((within - length + 0.55 * atrial) / (0.45 * atrial)) ** 2))
    half_closed = np.full(num_frames, 0.22)
    opening = np.where(in_diastole, np.maximum.reduce([early_wave, 0.75 * atrial_wave, half_closed]), 0.0)
    # a valve needs a few milliseconds to swing
    kernel = np.hanning(2 * max(round(0.02 * fps), 1) + 3)[1:-1]
    opening = parameters.leaflet_swing * np.convolve(
        np.pad(opening, len(kernel) // 2, mode="edge"), kernel / kernel.sum(), mode="valid"
    )

    phase = rng.uniform(0, 2 * np.pi, 3)
    cycle = 2 * np.pi * parameters.breathing_rate / 60 * time
    drift = parameters.breathing_amplitude * np.stack(
        [0.5 * np.sin(cycle + phase[0]) + 0.2 * np.sin(2.3 * cycle + phase[1]), 0.6 * np.sin(cycle + phase[2])], axis=1
    )
    if parameters.probe_sway:
        sway_phase = rng.uniform(0, 2 * np.pi, (2, 2))
        sway = np.sin(2 * np.pi * np.array([0.13, 0.31]) * time[:, None, None] + sway_phase).mean(axis=2)  # (T, 2)
        drift = drift + parameters.probe_sway * (sway - sway[end_diastolic_frame])
    return CardiacMotion(
        contraction=contraction,
        lead=parameters.dyssynchrony * rising * np.clip(contraction, 0, 1) * np.clip(1 - contraction, 0, 1),
        mitral_opening=opening,
        drift=drift,
        end_diastolic_frame=end_diastolic_frame,
        end_systolic_frame=end_diastolic_frame + systole_frames,
        beat_starts=starts * fps,
    )
