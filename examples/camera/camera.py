# SPDX-License-Identifier: Apache-2.0
"""Focus peaking of a camera or a video file, and how long it takes.

    python examples/camera/camera.py 0 --show              # /dev/video0
    python examples/camera/camera.py video.mp4 --write peaking.avi

Contours that are in focus are red. At the end, times are printed: latency is from when a frame has been read until its
overlay is ready, jitter the standard deviation of the times between overlays. Needs `opencv-contrib-python`, which
reads cameras by V4L2 and files by FFmpeg; for all but --show the headless package will do.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from defocus_fast import VideoEstimator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="number of a camera, or a video file")
    parser.add_argument("--show", action="store_true", help="in a window; q ends it")
    parser.add_argument("--write", type=Path, help="video file to write, Motion JPEG (.avi)")
    parser.add_argument("--in-focus", type=float, default=1.5, help="largest radius that is in focus, px")
    parser.add_argument("--frames", type=int, default=0, help="stop after so many; 0: go on")
    args = parser.parse_args()
    capture = cv2.VideoCapture(int(args.source) if args.source.isdigit() else args.source)
    if not capture.isOpened():
        parser.error(f"source: expected a camera or a video file that OpenCV reads, got {args.source}")

    estimator, writer = None, None
    latencies, ends = [], []
    while not args.frames or len(latencies) < args.frames:
        found, frame = capture.read()
        if not found:
            break
        begin = time.perf_counter()
        if estimator is None or (estimator.height, estimator.width) != frame.shape[:2]:
            estimator = VideoEstimator(*frame.shape[:2])
        result = estimator.estimate(frame[..., ::-1], expected_error=False)  # OpenCV's frames are BGR
        frame[result.pattern_edges & (result.map <= args.in_focus)] = (0, 0, 255)
        ends.append(time.perf_counter())
        latencies.append(1e3 * (ends[-1] - begin))
        if args.write:
            if writer is None:
                rate = capture.get(cv2.CAP_PROP_FPS) or 30
                writer = cv2.VideoWriter(str(args.write), cv2.VideoWriter.fourcc(*"MJPG"), rate, frame.shape[1::-1])
            writer.write(frame)
        if args.show:
            cv2.imshow("in focus", frame)
            if cv2.waitKey(1) == ord("q"):
                break
    if writer is not None:
        writer.release()
    if len(latencies) < 2:
        raise SystemExit(f"{args.source}: expected a video of two frames or more, got {len(latencies)}")
    median, most, longest = np.percentile(latencies, [50, 99, 100])
    jitter = 1e3 * np.diff(ends).std()
    times = f"latency median {median:.1f} ms, p99 {most:.1f} ms, max {longest:.1f} ms; jitter {jitter:.1f} ms"
    print(f"{len(latencies)} frames: {times}")


if __name__ == "__main__":
    main()
