"""Where images come from: every class gives uint8 train and test images with their classes."""

from supreme.components import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "CIFAR10": "cifar",
        "CIFAR100": "cifar",
        "CIFAR20": "cifar",
        "Caltech101": "caltech101",
        "Digits": "digits",
        "FashionMNIST": "mnist",
        "ImageDataset": "base",
        "ImageFolder": "image_folder",
        "Images": "base",
        "MNIST": "mnist",
        "PinsFaceRecognition": "pins",
        "StoredDataset": "store",
        "UTKFace": "utkface",
    },
)
