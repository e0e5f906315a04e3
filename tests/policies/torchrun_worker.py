"""One rank of `test_distributed`: train, then save what must agree between ranks."""

import sys
from pathlib import Path

import torch

from policies.distributed import init_from_env
from policies.ppo import PPO, PPOConfig
from policies.toy import PointMass

torch.set_num_threads(1)
rank, world_size = init_from_env()
env = PointMass(64, seed=100 + rank)
# Different seeds of the weights: rank 0's must win.
ppo = PPO(env.observation_dims, env.num_actions, 64, PPOConfig(hidden=(32, 32), normalize_value=True), seed=rank)
rewards = [ppo.iterate(env)["rollout/reward"] for _ in range(12)]
state = {"network": ppo.network.state_dict(), "lr": ppo.optimizer.lr, "rewards": rewards, "world_size": world_size}
torch.save({**state, "noise": ppo.rollout.noise}, Path(sys.argv[1]) / f"rank{rank}.pt")
