"""The mathematics of methods and metrics as pure functions of tensors; losses have one value per sample."""

from supreme.components import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "SampleGradientSums": "importance",
        "activation_distance": "divergence",
        "adaptive_rank": "quantiles",
        "agreement": "divergence",
        "cross_entropy": "classification",
        "dampen": "dampening",
        "divergence_from_teacher": "distillation",
        "entropy": "membership",
        "fitting_rows": "importance",
        "js_divergence": "divergence",
        "lipschitz_ratio": "lipschitz",
        "neg_grad": "classification",
        "percentile": "quantiles",
        "perturb": "lipschitz",
        "published_js_divergence": "divergence",
        "scrub_distillation": "scrub",
        "scrub_forget": "scrub",
        "scrub_retain": "scrub",
        "scrub_smoothing": "scrub",
        "select": "dampening",
        "two_teachers": "distillation",
    },
)
