"""mecold at home in existing stacks, in both directions.

From a host: `FactorModel` and `NeighbourModel` hold what a trained model knows, with the host's own scores; what
`FactorModel.to_factors()` gives goes into `Recommender.fit_meta(factors=...)`, and `ColdStartRouter` puts either beside
mecold. Into a host: one module per library (`mecold_adapters.implicit`, `.lenskit`, `.rectools`, `.cornac`, `.sklearn`), which
imports its host when it is imported.
`mecold adapters` lists what is installed.
"""

from mecold_adapters.router import ColdStartRouter, Routed
from mecold_adapters.warm import FactorModel, NeighbourModel, WarmModel

__all__ = ["ColdStartRouter", "FactorModel", "NeighbourModel", "Routed", "WarmModel"]
