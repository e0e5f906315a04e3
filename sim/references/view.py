"""Pictures of a reference: a film of hand, object and table moved by the clip alone, and its curves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from sim.objects import get_object
from sim.references.format import HUMAN, Reference
from sim.references.kinematics import couplings
from sim.robots import get_hand
from sim.video import SceneRenderer, caption, write_video

# (from, to) keypoints of what is drawn of a human hand: the palm's outline and the fingers.
_BONES = [(0, 1), (0, 5), (5, 9), (9, 13), (13, 17), (0, 17)]
_BONES += [(k, k + 1) for root in (1, 5, 9, 13, 17) for k in range(root, root + 3)]
_VIEWS = ((130.0, -22.0), (220.0, -12.0))  # azimuth, elevation, degrees


def film(reference: Reference, path: Path, height: int = 360, width: int = 480) -> Path:
    """Write an mp4 (two views side by side, real time, about 30 pictures/s) of a clip without missing frames.

    Keypoints are drawn as bones, beside the robot if the clip has both. Raises RenderError without OpenGL.
    """
    model, qpos = _scene(reference)
    stride = max(1, round(reference.rate_hz / 30))
    focus = _focus(reference)
    middle = (focus.min(axis=0) + focus.max(axis=0)) / 2
    distance = 0.4 + 0.9 * float(np.linalg.norm(focus - middle, axis=1).max())

    def pictures() -> Iterator[np.ndarray]:
        with SceneRenderer(model, height, width, lookat=middle.tolist(), distance=distance) as renderer:
            for t in range(0, reference.num_frames, stride):
                views = []
                for renderer.camera.azimuth, renderer.camera.elevation in _VIEWS:
                    views.append(renderer.render(qpos[t]).copy())
                text = f"{reference.name}  {reference.object}  {t / reference.rate_hz:.2f} s"
                yield caption(np.concatenate(views, axis=1), text)

    return write_video(path, pictures(), fps=reference.rate_hz / stride)


def plot(reference: Reference, path: Path) -> Path:
    """Write a PNG with the curves of object, wrist and joints (or fingertips) over time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    times = np.arange(reference.num_frames) / reference.rate_hz
    panels: list[tuple[str, str, np.ndarray, list[str]]] = []
    for key in ("object", "wrist"):
        pose = reference.object_pose if key == "object" else reference.wrist_pose
        panels.append((f"{key} position", "m", pose[:, :3], ["x", "y", "z"]))
        panels.append((f"{key} rotation since the start", "deg", _turned(pose[:, 3:]), ["x", "y", "z"]))
    if reference.joint_pos is not None:
        names = list(reference.joint_names)
        for start in range(0, len(names), 8):
            part = slice(start, start + 8)
            panels.append(("finger joints", "rad", reference.joint_pos[:, part], names[part]))
    else:
        assert reference.keypoints is not None
        tips = np.linalg.norm(reference.keypoints[:, [8, 12, 16, 20]] - reference.keypoints[:, [4]], axis=2)
        panels.append(("fingertip to thumb tip", "m", tips, ["index", "middle", "ring", "little"]))
    figure = Figure(figsize=(11, 2.7 * ((len(panels) + 1) // 2)), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (title, unit, values, labels) in enumerate(panels):
        axes = figure.add_subplot((len(panels) + 1) // 2, 2, number + 1)
        for column, label in enumerate(labels):
            axes.plot(times, values[:, column], linewidth=1.2, label=label)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("s", fontsize=8)
        axes.set_ylabel(unit, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, ncols=2)
    figure.suptitle(f"{reference.name}: {reference.robot}, {reference.object}, {reference.rate_hz:g} Hz", fontsize=11)
    figure.savefig(path, dpi=100, format="png")
    return path


def _turned(quaternions: np.ndarray) -> np.ndarray:
    """Rotation vector (T, 3), degrees, world frame, since the first frame that is there."""
    turned = np.full((len(quaternions), 3), np.nan)
    there = np.isfinite(quaternions).all(axis=1)
    if there.any():
        rotation = Rotation.from_quat(quaternions[there], scalar_first=True)
        turned[there] = np.degrees((rotation * rotation[0].inv()).as_rotvec())
    return turned


def _focus(reference: Reference) -> np.ndarray:
    points = [reference.object_pose[:, :3], reference.wrist_pose[:, :3]]
    if reference.keypoints is not None:
        points.append(reference.keypoints.reshape(-1, 3))
    return np.concatenate(points)


def _scene(reference: Reference) -> tuple[mujoco.MjModel, np.ndarray]:
    """The model, and its positions (T, nq) at every frame."""
    if reference.robot != HUMAN:
        robot = get_hand(reference.robot, side=reference.side)
        spec = robot.spec()
        for key in list(spec.keys):
            spec.delete(key)  # a robot's keyframe does not know the object
    else:
        robot, spec = None, mujoco.MjSpec()
    height = reference.table_height or 0.0
    table = spec.worldbody.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.5, 0.5, 0.02])
    table.pos, table.rgba = [0, 0, height - 0.02], [0.55, 0.6, 0.65, 1]
    spec.worldbody.add_light(pos=[0.3, -0.4, height + 1.2], dir=[-0.2, 0.3, -1.0], castshadow=False)
    get_object(reference.object).add_to(spec)
    bones = {}
    if reference.keypoints is not None:
        for a, b in _BONES:
            ends = reference.keypoints[:, a], reference.keypoints[:, b]
            bones[f"bone_{a}_{b}"] = _bone_poses(*ends)
            _add_bone(spec, f"bone_{a}_{b}", float(np.median(np.linalg.norm(ends[1] - ends[0], axis=1))))
    model = spec.compile()
    qpos = np.zeros((reference.num_frames, model.nq))
    for name, poses in {"object": reference.object_pose, **bones}.items():
        start = model.joint(name).qposadr[0]
        qpos[:, start : start + 7] = poses
    if robot is not None:
        joints = {**_columns(robot.wrist_joints, robot.wrist_pose_to_joints(reference.wrist_pose))}
        joints |= _columns(robot.finger_joints, reference.joints(robot.finger_joints))
        for name, values in joints.items():
            qpos[:, model.joint(name).qposadr[0]] = values
        for pair in couplings(model):
            qpos[:, pair.follower] = pair.place(qpos[:, pair.leader])
    return model, qpos


def _columns(names: tuple[str, ...], values: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[:, i] for i, name in enumerate(names)}


def _add_bone(spec: mujoco.MjSpec, name: str, length: float) -> None:
    body = spec.worldbody.add_body(name=name)
    body.add_freejoint(name=name)
    geom = body.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[0.004, length / 2, 0])
    geom.rgba, geom.contype, geom.conaffinity = [0.95, 0.75, 0.6, 0.7], 0, 0


def _bone_poses(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Poses (T, 7) of a capsule along its z axis between two points (T, 3)."""
    along = end - start
    along = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    quaternion = np.stack([1 + along[:, 2], -along[:, 1], along[:, 0], 0 * along[:, 0]], axis=1)
    straight_down = quaternion[:, 0] < 1e-6
    quaternion[straight_down] = [0, 1, 0, 0]
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    return np.concatenate([(start + end) / 2, quaternion], axis=1)
