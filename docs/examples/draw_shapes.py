"""Draw a data set of coloured shapes: python docs/examples/draw_shapes.py FOLDER [IMAGES].

FOLDER gets a folder for each of five classes, each with so many PNG files of 32 × 32 pixels.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE, IMAGES = 32, 200
# Corners on a circle of radius 1, in degrees; None is the whole circle.
SHAPES = {
    "circle": None,
    "diamond": (0, 90, 180, 270),
    "hexagon": (0, 60, 120, 180, 240, 300),
    "square": (45, 135, 225, 315),
    "triangle": (30, 150, 270),
}


def draw(shape: str, random: np.random.Generator) -> Image.Image:
    """Return an image of a shape at a random place, size and angle, in random colours."""
    dark, light = random.integers(0, 110, 3), random.integers(146, 256, 3)
    ground, ink = (dark, light) if random.random() < 0.5 else (light, dark)
    image = Image.new("RGB", (SIDE, SIDE), tuple(map(int, ground)))
    radius = random.uniform(7, 12)
    x, y = random.uniform(radius, SIDE - radius, 2)
    corners = SHAPES[shape] or tuple(range(0, 360, 10))
    angles = np.radians(np.array(corners) + random.uniform(-15, 15))
    points = [(x + radius * np.cos(angle), y + radius * np.sin(angle)) for angle in angles]
    ImageDraw.Draw(image).polygon(points, fill=tuple(map(int, ink)))
    noise = random.integers(-15, 16, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def main(folder: Path, images: int) -> None:
    """Write the same files each time that it is called with the same arguments."""
    random = np.random.default_rng(1)
    for shape in SHAPES:
        (folder / shape).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            draw(shape, random).save(folder / shape / f"{number:04}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else IMAGES)
