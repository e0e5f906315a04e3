"""An `sim.env.Env` behind the interfaces of other learners."""
