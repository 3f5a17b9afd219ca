"""Adapters between mecold and other recommender stacks; each will be a module of its own that imports its host lazily.

None is written yet. The package exists so that its name, its types and its place in the wheel are settled.
"""
