"""What is computed: jets, images, ResNets, training, quantisation, evaluation."""
