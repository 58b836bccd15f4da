# SPDX-License-Identifier: Apache-2.0
"""The program of examples/camera, on a file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from images import texture

CAMERA = Path(__file__).parents[1] / "examples" / "camera" / "camera.py"


def test_the_camera_program_paints_what_is_in_focus(tmp_path: Path) -> None:
    height, width = 120, 160
    sharp = np.repeat(texture(height, width, seed=1)[..., :1], 3, axis=2)  # grey
    frame = np.where(np.arange(width)[:, None] < width // 2, sharp, cv2.GaussianBlur(sharp, (0, 0), 8))
    source, target = tmp_path / "in.avi", tmp_path / "out.avi"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter.fourcc(*"MJPG"), 25, (width, height))
    for _ in range(5):
        writer.write(frame)
    writer.release()
    run = subprocess.run(
        [sys.executable, CAMERA, source, "--write", target], capture_output=True, text=True, check=True, timeout=120
    )
    assert re.fullmatch(
        r"5 frames: latency median [\d.]+ ms, p99 [\d.]+ ms, max [\d.]+ ms; jitter [\d.]+ ms\n", run.stdout
    )
    capture = cv2.VideoCapture(str(target))
    frames = [capture.read()[1] for _ in range(5)]
    assert not capture.read()[0]
    for painted in frames:  # Motion JPEG halves the resolution of colours
        blue, _, red = (painted[..., c].astype(int) for c in range(3))
        share = [(half > 60).mean() for half in np.array_split(red - blue, 2, axis=1)]
        assert share[0] > 0.02
        assert share[1] < 0.002


def test_what_is_no_video_is_said(tmp_path: Path) -> None:
    (tmp_path / "no.avi").write_bytes(b"no video")
    run = subprocess.run([sys.executable, CAMERA, tmp_path / "no.avi"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 2
    assert "expected a camera or a video file that OpenCV reads" in run.stderr
