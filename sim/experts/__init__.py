"""Scripted behaviour with privileged knowledge: experts, and failures of known kinds."""
