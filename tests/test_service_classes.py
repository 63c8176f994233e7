"""A user's own classifier of any classes behind a service: what `python -m quantize head` writes is what the service loads."""

import numpy as np
from random_networks import CHANNELS, feature_sums, featurizer, featurizer_layers, random_image
from running_service import running_service
from tritonclient.grpc import InferenceServerClient, InferInput

from quantize import head
from quantize.classifier import load_classifier, save_classifier

SEED = 97
NAMES = ("one", "two", "three", "four")


def test_a_fitted_classifier_of_four_classes_is_served_with_its_names(tmp_path):
    program, layers = featurizer(SEED), featurizer_layers(SEED)
    rng = np.random.default_rng(SEED)
    images = np.stack([random_image(rng, program) for _ in range(16)])
    features = program.features(np.stack([feature_sums(layers, image) for image in images]))
    made = head.fit(head.sample(features, np.arange(16) % 4, NAMES), head.Recipe(hidden=8, epochs=2))
    save_classifier(tmp_path / "new.npz", made.classifier, made.provenance)
    classifier = load_classifier(tmp_path / "new.npz")
    with running_service(program, classifier) as address, InferenceServerClient(address) as client:
        tensor = InferInput("image", [1, *images[0].shape], "UINT8")
        tensor.set_data_from_numpy(images[:1])
        answer = client.infer("tagger", [tensor]).as_numpy("probabilities")
        config = client.get_model_config("tagger").config
    assert (answer == classifier.probabilities(features[:1])).all(), f"seed {SEED}"
    assert config.parameters["labels"].string_value == ",".join(NAMES)
    assert features.shape[1] == CHANNELS
