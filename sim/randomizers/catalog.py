"""Every randomiser there is: what it varies, in which unit, which fields it writes, and when it is drawn."""

from __future__ import annotations

from sim.randomizers.base import Randomizer
from sim.randomizers.fields import Change
from sim.randomizers.kind import Kind, Request
from sim.randomizers.pushes import Kick, Push
from sim.randomizers.signals import Latency, SensorBias, SensorNoise


def _push(kind: Kind, r: Request) -> Randomizer:
    assert r.target is not None
    return Push(r.name, r.draw, r.timing, kind.unit, r.target, r.duration_s)


def _kick(kind: Kind, r: Request) -> Randomizer:
    assert r.target is not None
    return Kick(r.name, r.draw, r.timing, kind.unit, r.target)


def _latency(kind: Kind, r: Request) -> Randomizer:
    return Latency(r.name, r.draw, r.timing, kind.unit)


def _sensor_noise(kind: Kind, r: Request) -> Randomizer:
    return SensorNoise(r.name, r.draw, r.timing, kind.unit)


def _sensor_bias(kind: Kind, r: Request) -> Randomizer:
    return SensorBias(r.name, r.draw, r.timing, kind.unit, r.sensors)


_SCALED = ("scale",)
_ANY = ("scale", "add", "set")
_FIRST, _SECOND, _THIRD = (0, 1), (1, 2), (2, 3)
_SIZE = {
    **{"geom_size": 1, "geom_pos": 1, "geom_rbound": 1, "geom_aabb": 1, "body_ipos": 1},
    **{"body_mass": 3, "body_inertia": 5},
}
_ROWS = ("each",)

KINDS: tuple[Kind, ...] = (
    Kind(
        "mass",
        "bodies",
        "mass and inertia in proportion; the shape stays",
        "kg",
        (0.7, 1.3),
        (Change("body_mass"), Change("body_inertia")),
        _SCALED,
        derive=True,
        settings=_ROWS,
    ),
    Kind(
        "inertia",
        "bodies",
        "moments of inertia; the mass stays",
        "kg m²",
        (0.8, 1.25),
        (Change("body_inertia"),),
        _SCALED,
        derive=True,
        settings=_ROWS,
    ),
    Kind(
        "com",
        "bodies",
        "centre of mass, along each axis of the body",
        "m",
        (-0.005, 0.005),
        (Change("body_ipos", "add"),),
        ("add",),
        form="xyz",
        derive=True,
        settings=_ROWS,
    ),
    Kind(
        "friction",
        "geoms",
        "sliding friction of the geoms",
        "1",
        (0.7, 1.0),
        (Change("geom_friction", columns=_FIRST),),
        _ANY,
        settings=_ROWS,
    ),
    Kind(
        "size",
        "whole",
        "every length, at constant density: mass ∝ s³",
        "m",
        (0.9, 1.1),
        tuple(Change(name, power=power) for name, power in _SIZE.items()),
        _SCALED,
        derive=True,
    ),
    Kind(
        "color",
        "geoms",
        "red, green and blue of the geoms",
        "0 to 1",
        (0.0, 1.0),
        (Change("geom_rgba", "set", columns=(0, 3)),),
        ("set",),
        form="xyz",
        privileged=False,
        settings=_ROWS,
    ),
    Kind(
        "push",
        "body",
        "a force on the centre of mass, in any direction",
        "N",
        (0.0, 0.5),
        form="sphere",
        times=("interval",),
        least=0.0,
        data=("xfrc_applied",),
        settings=("duration_s", "horizontal"),
        make=_push,
    ),
    Kind(
        "kick",
        "free",
        "a sudden change of velocity, in any direction",
        "m/s",
        (0.0, 0.2),
        form="sphere",
        times=("interval",),
        privileged=False,
        least=0.0,
        data=("qvel",),
        settings=("horizontal",),
        make=_kick,
    ),
    Kind(
        "damping",
        "joints",
        "viscous damping of joints",
        "N m s/rad or N s/m",
        (0.5, 2.0),
        (Change("dof_damping"),),
        _ANY,
        settings=_ROWS,
    ),
    Kind(
        "armature",
        "joints",
        "inertia of the drives, as the joints feel it",
        "kg m² or kg",
        (0.5, 2.0),
        (Change("dof_armature"),),
        _ANY,
        derive=True,
        settings=_ROWS,
    ),
    Kind(
        "frictionloss",
        "joints",
        "dry friction of joints",
        "N m or N",
        (0.0, 0.01),
        (Change("dof_frictionloss", "add"),),
        ("add", "scale", "set"),
        settings=_ROWS,
    ),
    Kind(
        "gains",
        "actuators",
        "stiffness and damping together; a motor's strength",
        "",
        (0.8, 1.2),
        (Change("actuator_gainprm"), Change("actuator_biasprm")),
        _SCALED,
        settings=_ROWS,
    ),
    Kind(
        "kp",
        "actuators",
        "stiffness of position actuators",
        "",
        (0.8, 1.2),
        (Change("actuator_gainprm", columns=_FIRST), Change("actuator_biasprm", columns=_SECOND)),
        _SCALED,
        settings=_ROWS,
    ),
    Kind(
        "kd",
        "actuators",
        "damping of position actuators",
        "",
        (0.5, 2.0),
        (Change("actuator_biasprm", columns=_THIRD),),
        _SCALED,
        settings=_ROWS,
    ),
    Kind(
        "gravity",
        "",
        "magnitude of gravity",
        "m/s²",
        (0.9, 1.1),
        (Change("opt.gravity"),),
        _SCALED,
    ),
    Kind(
        "gravity_tilt",
        "",
        "direction of gravity, as if the floor were tilted",
        "rad",
        (0.0, 0.05),
        (Change("opt.gravity", "turn"),),
        ("turn",),
        form="horizontal",
        least=0.0,
    ),
    Kind(
        "position",
        "cameras",
        "place of fixed cameras, along each axis",
        "m",
        (-0.02, 0.02),
        (Change("cam_pos", "add"),),
        ("add",),
        form="xyz",
        privileged=False,
        settings=_ROWS,
    ),
    Kind(
        "rotation",
        "cameras",
        "orientation of fixed cameras, about any axis",
        "rad",
        (0.0, 0.05),
        (Change("cam_quat", "turn"),),
        ("turn",),
        form="sphere",
        privileged=False,
        least=0.0,
        settings=_ROWS,
    ),
    Kind(
        "fovy",
        "cameras",
        "vertical field of view",
        "degrees",
        (0.95, 1.05),
        (Change("cam_fovy"),),
        _ANY,
        privileged=False,
        settings=_ROWS,
    ),
    Kind(
        "direction",
        "lights",
        "where fixed lights shine, about any axis",
        "rad",
        (0.0, 0.5),
        (Change("light_dir", "turn"),),
        ("turn",),
        form="sphere",
        privileged=False,
        least=0.0,
        settings=_ROWS,
    ),
    Kind(
        "diffuse",
        "lights",
        "brightness of lights",
        "0 to 1",
        (0.5, 1.5),
        (Change("light_diffuse"),),
        ("scale", "set"),
        privileged=False,
        settings=_ROWS,
    ),
    Kind(
        "latency",
        "",
        "whole steps by which commands arrive late",
        "control steps",
        (0, 2),
        times=("reset", "start"),
        least=0.0,
        make=_latency,
    ),
    Kind(
        "sensor_noise",
        "",
        "strength of the sensor noise",
        "× the task's noise",
        (0.5, 2.0),
        times=("reset", "start", "interval"),
        least=0.0,
        make=_sensor_noise,
    ),
    Kind(
        "sensor_bias",
        "",
        "an offset of each reading, for a whole episode",
        "× the task's noise",
        (-1.0, 1.0),
        times=("reset", "start", "interval"),
        privileged=False,
        make=_sensor_bias,
    ),
)
"""In the order of `robolearn list randomizers`."""
