"""What each adapter says of itself (entry points `mecold.adapters`); imports no host."""

from mecold.plugins import Adapter

FACTORS = Adapter(
    "factors", "", "", "arrays of LightFM (rectools-lightfm 1.17.3)", "",
    {
        "FactorModel": "ids, factors and biases from numpy, npz, parquet or safetensors",
        "NeighbourModel": "an item-item similarity matrix",
        "ColdStartRouter": "one call for warm and cold users",
    },
)  # fmt: skip
IMPLICIT = Adapter(
    "implicit", "implicit", "implicit", "implicit 0.7.3", ">=0.7.2,<0.8",
    {"warm_model": "factors and scores of ALS, BPR, LMF and item-item models", "MecoldRecommender": "mecold as a model"},
)  # fmt: skip
SKLEARN = Adapter(
    "sklearn", "scikit-learn", "sklearn", "scikit-learn 1.9", ">=1.5",
    {"MecoldEstimator": "mecold as an estimator, for grid searches over GroupKFold users"},
)  # fmt: skip
LENSKIT = Adapter(
    "lenskit", "lenskit", "lenskit", "LensKit 2025.8.1 and 2026.4.0", ">=2025.8,<2027",
    {"MecoldScorer": "a scorer component that answers unseen users from the query's history"},
)  # fmt: skip
RECTOOLS = Adapter(
    "rectools", "RecTools", "rectools", "RecTools 0.19", ">=0.19,<0.20",
    {"MecoldModel": "mecold as a model: users with interactions in the data set are hot, fitted on or not"},
)  # fmt: skip
CORNAC = Adapter(
    "cornac", "cornac", "cornac", "Cornac 3.0.1", ">=3,<4",
    {
        "warm_model": "factors and scores of models with ANNMixin and the inner product (tested: MF, PMF, BPR)",
        "MecoldRecommender": "mecold as a NextItemRecommender and as a Recommender in cornac.Experiment",
    },
)  # fmt: skip
SPARK = Adapter(
    "spark", "pyspark", "spark", "PySpark 4.1", ">=4,<5",
    {"recommend": "lists for the users of a Spark table, by mapInArrow"},
)  # fmt: skip
