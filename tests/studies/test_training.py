import torch

from layerpeel.studies.training import Training, perceptron, regularised_loss, train


def blobs(seed=0):
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).repeat(20)
    centres = 3 * torch.eye(3)
    return centres[labels] + 0.3 * torch.randn(60, 3, generator=random), labels


def test_the_seed_decides_the_weights_and_the_global_generator_is_left_alone():
    state = torch.random.get_rng_state()
    first, second, other = (perceptron((3, 8, 3), seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)
    assert [type(layer).__name__ for layer in first] == ["Linear", "ReLU", "Linear"]


def test_the_regularised_loss_is_what_its_gradient_step_decreases():
    inputs, labels = blobs()
    model = perceptron((3, 8, 3), 0).double()
    by_hand = torch.nn.functional.cross_entropy(model(inputs.double()), labels)
    for parameter in model.parameters():
        by_hand = by_hand + 0.5 * 0.1 * (parameter**2).sum()
    found = regularised_loss(model, inputs.double(), labels, 0.1)
    torch.testing.assert_close(torch.tensor(found), by_hand.detach(), check_dtype=False)


def test_training_stops_when_the_loss_is_stationary():
    inputs, labels = blobs()
    settings = Training(weight_decay=1e-2, window=50)
    trained = train(perceptron((3, 8, 3), 0), inputs, labels, settings)
    assert trained.stationary
    assert trained.last_decrease < settings.tolerance
    assert trained.epochs < settings.max_epochs
    assert trained.epochs % settings.window == 0
    assert not trained.model.training
    # Another thousand epochs would not find much.
    again = train(
        trained.model, inputs, labels, Training(weight_decay=1e-2, window=1000)
    )
    assert 0 <= trained.loss - again.loss < 0.01 * trained.loss


def test_training_that_runs_out_of_epochs_says_so():
    inputs, labels = blobs()
    settings = Training(window=10, max_epochs=20, tolerance=0.0)
    trained = train(perceptron((3, 8, 3), 0), inputs, labels, settings)
    assert trained.epochs == 20
    assert not trained.stationary
