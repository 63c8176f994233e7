"""What is computed: jets, images, the ResNet featurizer in QKeras, its training and its evaluation."""
