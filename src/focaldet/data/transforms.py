"""What is done to a sample on its way to the network."""

from focaldet.data.published import PublishedSteps


def build_transform(sizes, augment=(), *, train):
    return PublishedSteps(tuple(sizes), train and "flip" in augment)
