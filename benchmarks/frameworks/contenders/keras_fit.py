"""Keras 3 with plain `fit`; KERAS_BACKEND names TensorFlow, JAX or PyTorch."""

from typing import Any

import keras
from keras import layers

LAYERS = {
    "v1": lambda: [
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ],
    "v2": lambda: [
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Dropout(0.25),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ],
    "v3": lambda: [
        layers.Conv2D(32, 4, activation="relu"),
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Dropout(0.2),
        layers.Flatten(),
        layers.Dense(248, activation="relu"),
        layers.Dense(124, activation="relu"),
        layers.Dropout(0.4),
        layers.Dense(10, activation="softmax"),
    ],
}


def pixels(images: Any) -> Any:
    return images[..., None].astype("float32") / 255


def without_tuning() -> None:
    """Keep tf.data from tuning its pipelines, which costs no speed here.

    When an epoch begins, Keras drops the iterator of the previous one. TensorFlow 2.21 then waits
    until that iterator's tuning thread wakes, and the longer others train in between, the longer it
    sleeps: up to a minute, with nothing to do.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    prefetch = tf.data.Dataset.prefetch
    tf.data.Dataset.prefetch = lambda data, *args, **kwargs: prefetch(
        data, *args, **kwargs
    ).with_options(options)


def train(version: str, images: Any, labels: Any, epochs: int, seed: int, end_epoch: Any) -> Any:
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        without_tuning()
    model = keras.Sequential([keras.Input((28, 28, 1)), *LAYERS[version]()])
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        pixels(images),
        keras.utils.to_categorical(labels, 10),
        batch_size=128,
        epochs=epochs,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: end_epoch())],
        verbose=0,
    )

    def predict(images: Any) -> Any:
        x = pixels(images)
        if len(x) <= 512:  # Keras advises to call the model then.
            return keras.ops.convert_to_numpy(model(x, training=False))
        return model.predict(x, batch_size=512, verbose=0)

    return predict
