import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearnkit.base import Variables
from unlearnkit.models import MODELS, create

DIGITS, MNIST, CIFAR = (8, 8, 1), (28, 28, 1), (32, 32, 3)
TAKES = {
    "logistic": (DIGITS, MNIST, CIFAR, (5,)),
    "mlp": (DIGITS, MNIST, CIFAR, (5,)),
    "nn": (DIGITS, MNIST),
    "lenet": ((12, 13, 1), MNIST, CIFAR),
    "cnn_mnist": (DIGITS, MNIST, (4, 7, 2)),
    "cnn_cifar": (MNIST, CIFAR, (16, 17, 1)),
    "vggmini": (DIGITS, CIFAR),
    "allcnn": (DIGITS, CIFAR),
    "allcnn_small": (DIGITS, CIFAR, (4, 5, 1)),
    "resnet18": (DIGITS, CIFAR),
    "speedrun": ((16, 17, 1), CIFAR),
    "vgg11": ((32, 33, 1), CIFAR),
    "vgg16": ((32, 33, 1), CIFAR),
    "vit_tiny": (DIGITS, CIFAR, (224, 224, 3)),
    "convnext_tiny": (DIGITS, CIFAR, (224, 224, 3)),
    "deep_averaging": ((6,), (128,)),
    "gpt2_tiny": ((6,), (128,)),
    "gpt2": ((6,), (1024,)),
    "gpt2_medium": ((6,),),
    "llama_tiny": ((6,), (128,)),
    "smollm2_135m": ((6,),),
}
PARAMETERS = {
    ("logistic", MNIST): 7_850,
    ("nn", MNIST): 2 * (784 * 784 + 784) + 7_850,
    ("lenet", MNIST): 61_706,
    ("lenet", (32, 32, 1)): 61_706,
    ("cnn_mnist", MNIST): 28_938,
    ("cnn_cifar", CIFAR): 62_006,
    ("vggmini", CIFAR): 5_750_922,
    ("resnet18", CIFAR): 11_173_962,
    ("speedrun", CIFAR): 287_360,
}
PUBLISHED = {  # with 1000 classes, by torchvision and timm
    ("vgg11", ()): 132_863_336,
    ("vgg16", ()): 138_357_544,
    ("vgg16", (("norm", True),)): 138_365_992,
    ("vit_tiny", ()): 5_717_416,
    ("convnext_tiny", ()): 28_589_128,
    ("resnet18", (("stem", "imagenet"),)): 11_689_512,
}
IMAGE_MODELS = tuple(
    name for name in MODELS if "implementation" in inspect.signature(MODELS[name]).parameters
)
THIN = {
    "resnet18": {"width": 4},
    "allcnn": {"width": 4},
}


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def abstract(model):
    return jax.eval_shape(model.init, jax.random.key(0))


def test_every_model_has_its_shapes_listed():
    assert set(TAKES) == set(MODELS)


@pytest.mark.parametrize(("name", "shape"), PARAMETERS, ids=str)
def test_parameter_counts(name, shape):
    model = create(name, input_shape=shape, n_classes=10)
    assert count(abstract(model).params) == PARAMETERS[name, shape]


@pytest.mark.parametrize(("name", "options"), PUBLISHED, ids=str)
def test_published_parameter_counts(name, options):
    model = create(name, input_shape=(224, 224, 3), n_classes=1000, **dict(options))
    assert count(abstract(model).params) == PUBLISHED[name, options]


def test_vggmini_fits_the_error_that_the_paper_converts():
    dim = PARAMETERS["vggmini", CIFAR]
    assert f"{(1e-6 * dim) ** 0.5:.3f}" == "2.398"
    assert f"{dim / 1e6:.2f}" == "5.75"


@pytest.mark.parametrize(
    ("name", "shape"), [(name, shape) for name in TAKES for shape in TAKES[name]], ids=str
)
def test_maps_every_input_to_logits(name, shape):
    model = create(name, input_shape=shape, n_classes=7)
    assert model.n_classes == 7
    x = jax.ShapeDtypeStruct((3, *shape), model.input_dtype)
    logits = jax.eval_shape(model.apply, abstract(model), x)
    assert (logits.shape, logits.dtype) == ((3, 7), jnp.float32)


@pytest.mark.parametrize("name", MODELS)
def test_layers_run_from_input_to_output_and_cover_the_parameters(name):
    model = create(name, input_shape=TAKES[name][0], n_classes=7)
    params = abstract(model).params
    assert model.layers[-1] == (("classifier",),)
    sizes, kernels = 0, []
    for group in model.layers:
        for path in group:
            subtree = params
            for key in path:
                subtree = subtree[key]
            sizes += count(subtree)
            kernels += [subtree["kernel"].shape] if "kernel" in subtree else []
    assert sizes == count(params)
    assert kernels[-1][-1] == 7
    if model.takes_tokens:  # whose layers are blocks
        return
    assert len(kernels) == len(model.layers)
    # Each layer takes what the one before gives; a flattened map multiplies it by its area.
    if name not in ("resnet18", "vit_tiny", "convnext_tiny"):
        outputs = [kernel[-1] for kernel in kernels[:-1]]
        inputs = [kernel[-2] for kernel in kernels[1:]]
        assert all(i % o == 0 for i, o in zip(inputs, outputs, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_equal_calls_return_equal_models(name):
    shape = TAKES[name][0]
    one, two = (create(name, input_shape=shape, n_classes=7) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert one != create(name, input_shape=shape, n_classes=8)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_implementation_is_part_of_equality(name):
    make = {
        how: create(name, input_shape=TAKES[name][0], n_classes=7, implementation=how)
        for how in ("xla", "patches", "bilinear")
    }
    assert len(set(make.values())) == 3


def relative_error(one, two):
    flat = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(t)]) for t in (one, two)]
    return np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[0])


def implementations(name, **options):
    for how in ("xla", "patches", "bilinear"):
        model = create(name, input_shape=TAKES[name][0], n_classes=7, implementation=how, **options)
        yield model, jax.jit(model.init)(jax.random.key(0))


@pytest.mark.parametrize("name", sorted(set(IMAGE_MODELS) - {"allcnn_small", "vgg11", "vgg16"}))
def test_implementations_agree(name):
    options = THIN.get(name, {})
    x = jax.random.normal(jax.random.key(1), (5, *TAKES[name][0]))
    (logits, state), *others = (
        jax.jit(model.apply_train)(variables, x, jax.random.key(2))
        for model, variables in implementations(name, **options)
    )
    for other_logits, other_state in others:
        assert relative_error(logits, other_logits) <= 1e-4
        if state:
            assert relative_error(state, other_state) <= 1e-4


@pytest.mark.parametrize("name", ["lenet", "cnn_mnist"])
def test_gradients_of_implementations_agree(name):
    x = jax.random.normal(jax.random.key(1), (5, *TAKES[name][0]))
    gradients = [
        jax.jit(
            jax.grad(
                lambda p, model=model: (jax.nn.log_softmax(model.apply(Variables(p), x)) ** 2).sum()
            )
        )(variables.params)
        for model, variables in implementations(name)
    ]
    for other in gradients[1:]:
        assert relative_error(gradients[0], other) <= 1e-4


def test_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"'lanet'; known: logistic, mlp, .*resnet18"):
        create("lanet", input_shape=MNIST, n_classes=10)
    with pytest.raises(
        ValueError, match="no option depth; its options: implementation, rematerialise, stem, width"
    ):
        create("resnet18", input_shape=CIFAR, n_classes=10, depth=3)
    with pytest.raises(ValueError, match="its options: none"):
        create("logistic", input_shape=CIFAR, n_classes=10, width=3)
    with pytest.raises(ValueError, match=r"implementation must be one of xla, patches.*'fast'"):
        create("lenet", input_shape=MNIST, n_classes=10, implementation="fast")
    with pytest.raises(ValueError, match=r"activation must be one of relu, .*'sine'"):
        create("mlp", input_shape=MNIST, n_classes=10, activation="sine")
    with pytest.raises(ValueError, match=r"pool must be one of max, average, got 'sum'"):
        create("cnn_mnist", input_shape=MNIST, n_classes=10, pool="sum")
    with pytest.raises(ValueError, match=r"activation must be one of relu, .*'sine'"):
        create("cnn_cifar", input_shape=CIFAR, n_classes=10, activation="sine")
    with pytest.raises(ValueError, match=r"hidden widths must be >= 1, got \(4, 0\)"):
        create("mlp", input_shape=MNIST, n_classes=10, hidden=(4, 0))
    with pytest.raises(ValueError, match="width must be >= 1, got 0"):
        create("allcnn", input_shape=CIFAR, n_classes=10, width=0)
    with pytest.raises(ValueError, match="width must be >= 1, got -1"):
        create("resnet18", input_shape=CIFAR, n_classes=10, width=-1)
    with pytest.raises(ValueError, match="stem must be one of cifar, imagenet, got 'big'"):
        create("resnet18", input_shape=CIFAR, n_classes=10, stem="big")
    with pytest.raises(ValueError, match="patches of 4x4 pixels, got 30x32; resize them"):
        create("vit_tiny", input_shape=(30, 32, 3), n_classes=10)
    with pytest.raises(ValueError, match="heads divide the width, got width=10"):
        create("vit_tiny", input_shape=CIFAR, n_classes=10, width=10)
    with pytest.raises(ValueError, match=r"for each stage, got widths=\(4, 8\)"):
        create("convnext_tiny", input_shape=CIFAR, n_classes=10, widths=(4, 8))
    with pytest.raises(ValueError, match=r"dropout in \[0, 1\), got width=64, .*dropout=1"):
        create("vgg11", input_shape=CIFAR, n_classes=10, dropout=1.0)
    with pytest.raises(ValueError, match="n_classes must be >= 1, got 0"):
        create("lenet", input_shape=MNIST, n_classes=0)
    with pytest.raises(ValueError, match=r"input_shape must have sides >= 1, got \(28, 0, 1\)"):
        create("lenet", input_shape=(28, 0, 1), n_classes=10)


@pytest.mark.parametrize(
    ("name", "smallest"),
    [
        ("lenet", 12),
        ("cnn_mnist", 4),
        ("cnn_cifar", 16),
        ("vggmini", 8),
        ("allcnn", 4),
        ("vgg11", 32),
    ],
)
def test_refuses_small_images_and_no_others(name, smallest):
    create(name, input_shape=(smallest, smallest, 1), n_classes=2)
    small = (smallest, smallest - 1, 1)
    message = rf"{name} needs images of at least {smallest}x{smallest}.*{smallest}x{smallest - 1}"
    with pytest.raises(ValueError, match=message):
        create(name, input_shape=small, n_classes=2)
    with pytest.raises(ValueError, match=rf"{name} takes images .*got examples of shape \(64,\)"):
        create(name, input_shape=(64,), n_classes=2)


def test_mlp_with_its_activations_is_its_formula():
    model = create("mlp", input_shape=(2, 2), n_classes=3, hidden=(5, 4), activation="leaky_relu")
    params = model.init(jax.random.key(0)).params
    x = jax.random.normal(jax.random.key(1), (6, 2, 2))
    h = np.asarray(x).reshape(6, 4)
    for layer in ("fc1", "fc2"):
        h = h @ np.asarray(params[layer]["kernel"]) + np.asarray(params[layer]["bias"])
        h = np.where(h > 0, h, 0.2 * h)
    expected = h @ np.asarray(params["classifier"]["kernel"])
    variables = model.init(jax.random.key(0))
    np.testing.assert_allclose(model.apply(variables, x), expected, rtol=1e-5, atol=1e-6)


def test_rematerialised_blocks_have_the_same_weights_and_gradients():
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    gradients, programs = [], []
    for rematerialise in (False, True):
        model = create(
            "resnet18", input_shape=DIGITS, n_classes=3, width=4, rematerialise=rematerialise
        )
        variables = jax.jit(model.init)(jax.random.key(1))

        def loss(params, model=model, state=variables.state):
            logits, moved = model.apply_train(Variables(params, state), x, jax.random.key(2))
            return jnp.sum(logits**2), moved

        gradient = jax.grad(loss, has_aux=True)
        programs.append(str(jax.make_jaxpr(gradient)(variables.params)))
        gradients.append((variables, jax.jit(gradient)(variables.params)))
    assert [program.count("remat") for program in programs] == [0, 8]  # a block each
    chex.assert_trees_all_close(*gradients, rtol=1e-4, atol=1e-5)
