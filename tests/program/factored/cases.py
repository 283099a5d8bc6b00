"""Programs of every kind, by name: raw numbers for `make_program`."""

FOUR = [20.0, 10.0, 5.0, 3.0]

VARIANTS = {
    "decay": {"decay": (2e-3, 1e-3)},
    "decay per class": {"decay": (2e-2, 1e-1), "per": "class"},
    "budget": {"energy": (1.0, 5.0)},
    "free bias": {"decay": (2e-3, 1e-3), "bias": "free"},
    "ridge bias": {"energy": (2.0, 1.0), "bias": 0.01},
    "class weights and smoothing": {
        "decay": (2e-3, 1e-3),
        "class_weights": [1.0, 2.0, 3.0, 4.0],
        "smoothing": 0.1,
    },
    "budget with smoothing, not spent": {"energy": (4.0, 9.0), "smoothing": 0.1},
    "scale, offset, margin": {
        "decay": (2e-3, 1e-3),
        "scale": [1.0, 2.0, 1.0, 0.5],
        "offset": [0.1, 0.0, -1.0, 0.3],
        "margin": [1.0, 1.0, 2.0, 0.7],
        "bias": "free",
    },
    "squared": {"decay": (2e-3, 1e-3), "loss": "mse"},
    "squared, free bias": {"decay": (2e-3, 1e-3), "loss": "mse", "bias": "free"},
    "squared, budget": {"energy": (0.5, 0.5), "loss": "mse", "bias": 0.3},
}
