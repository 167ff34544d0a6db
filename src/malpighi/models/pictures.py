"""Decoded and resized images, kept within a bound: the same image is asked about many times."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from PIL import Image

from malpighi.geometry import Size
from malpighi.models.prompt import Prompt, PromptStyle, assemble, resize, shown_size
from malpighi.pixels import decode_image
from malpighi.records import ImageRef, Sample


class Pictures:
    """Builds prompts from samples and decodes each image as rarely as memory allows; safe across threads.

    What is kept is the resized image, a few hundred kilobytes, and never the decoded original. Least recently
    used images go first.

    Args:
        load_bytes: from a corpus key to the stored bytes, e.g. `Corpus.image_bytes`.
        style: how samples are put to the model.
        keep_bytes: bound on the pixels kept, bytes.
    """

    def __init__(
        self, load_bytes: Callable[[str], bytes], style: PromptStyle, keep_bytes: int = 512 * 2**20
    ) -> None:
        self.style = style
        self._load_bytes = load_bytes
        self._keep_bytes = keep_bytes
        self._kept: OrderedDict[tuple[str, Size], Image.Image] = OrderedDict()
        self._held = 0
        self._lock = Lock()

    def prompt(self, sample: Sample) -> Prompt:
        """The prompt of a sample; see `build_prompt`.

        Raises:
            DataError: an image cannot be decoded or does not fit its record; a special token in the words.
        """
        return assemble(sample, [self._resized(ref, sample) for ref in sample.images], self.style)

    @property
    def held_bytes(self) -> int:
        """Bytes of pixels kept now."""
        return self._held

    def _resized(self, ref: ImageRef, sample: Sample) -> Image.Image:
        size = shown_size(ref, sample, self.style)
        with self._lock:
            image = self._kept.get((ref.key, size))
            if image is not None:
                self._kept.move_to_end((ref.key, size))
                return image
        # Outside the lock: two threads may decode one image at the same time, but none waits for another's.
        image = resize(decode_image(self._load_bytes(ref.key)), ref, size)
        self._keep((ref.key, size), image)
        return image

    def _keep(self, key: tuple[str, Size], image: Image.Image) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = image
            self._held += _bytes_of(image)
            while self._held > self._keep_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._held -= _bytes_of(oldest)


def _bytes_of(image: Image.Image) -> int:
    return 3 * image.width * image.height
