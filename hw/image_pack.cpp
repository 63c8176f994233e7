// Lays an image out for the NPU. What goes where is said by hw.image_layout.Packer; hw.native_packer checks what comes here.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace {

using Size = std::ptrdiff_t;
using Byte = std::uint8_t;

struct Geometry {  // as in hw.native_packer
  Size height, width, channels, block, columns, pad_top, pad_left, rows, cols, cp, word_bytes;
};

// With the size known, the compiler makes a few moves of what else is a call.
template <std::size_t SIZE>
void copy_items_of(Byte* to, Size to_step, const Byte* from, Size from_step, Size count) {
  for (Size i = 0; i < count; ++i) std::memcpy(to + i * to_step, from + i * from_step, SIZE);
}

#ifdef __SSE2__
// The same past the caches, to words that are aligned to 16 bytes: the device reads them, and whoever made them shall keep its caches.
template <std::size_t SIZE>
void stream_items_of(Byte* to, Size to_step, const Byte* from, Size from_step, Size count) {
  for (Size i = 0; i < count; ++i) {
    for (std::size_t at = 0; at < SIZE; at += 16) {
      const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * from_step + at));
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + i * to_step + at), part);
    }
  }
}
#endif

// `count` items of `size` bytes, which stand `from_step` bytes apart, to where they stand `to_step` apart.
void copy_items(Size size, Byte* to, Size to_step, const Byte* from, Size from_step, Size count) {
  if (size == to_step && size == from_step) {
    std::memcpy(to, from, size * count);
    return;
  }
  switch (size) {
    case 6:  // a row of ResNet's 2 x 2 patches
      return copy_items_of<6>(to, to_step, from, from_step, count);
    case 8:  // words, whole or as much of them as a stem fills
      return copy_items_of<8>(to, to_step, from, from_step, count);
    case 16:
      return copy_items_of<16>(to, to_step, from, from_step, count);
    case 32:
      return copy_items_of<32>(to, to_step, from, from_step, count);
    case 48:
      return copy_items_of<48>(to, to_step, from, from_step, count);
    case 64:
      return copy_items_of<64>(to, to_step, from, from_step, count);
  }
  for (Size i = 0; i < count; ++i) std::memcpy(to + i * to_step, from + i * from_step, size);
}

// The same for words of the result.
void copy_words(Size size, Byte* to, Size to_step, const Byte* from, Size from_step, Size count) {
#ifdef __SSE2__
  if (to_step % 16 == 0 && reinterpret_cast<std::uintptr_t>(to) % 16 == 0) {
    switch (size) {
      case 32:
        return stream_items_of<32>(to, to_step, from, from_step, count);
      case 48:
        return stream_items_of<48>(to, to_step, from, from_step, count);
      case 64:
        return stream_items_of<64>(to, to_step, from, from_step, count);
    }
  }
#endif
  copy_items(size, to, to_step, from, from_step, count);
}

}  // namespace

// `patches` is working memory for a row of them: (cols + columns - 1) * block * block * channels bytes, which stay in the cache. There each
// pixel is written once; a word, which shares all but one of its patches with the next one, is then a single copy.
extern "C" void qw_pack_image(const Geometry* geometry, const Byte* image, Byte* patches, Byte* out) {
  const Geometry g = *geometry;
  const Size run = g.block * g.channels;  // the part of an image row that lies in one patch
  const Size patch = g.block * run;
  const Size lanes = g.columns * patch;
  const Size wide = g.cols + g.columns - 1;
  const Size row_bytes = g.cols * g.word_bytes;
  // Pixels of an image row that some word has: those before the first whole run, the whole runs, and those behind them.
  const Size pixels = std::max<Size>(0, std::min(g.width, wide * g.block - g.pad_left));
  const Size head = std::min(pixels, (g.block - g.pad_left % g.block) % g.block);
  const Size whole = (pixels - head) / g.block;
  const Size tail = (pixels - head) % g.block;

  for (Size row = 0; row < g.rows; ++row) {
    const Size top = row * g.block - g.pad_top;
    // Rows inside the image write the same places as the row before, so that the padding beside them stays zero.
    if (row == 0 || top < 0 || top + g.block > g.height) std::memset(patches, 0, wide * patch);
    const Size end = std::min(g.block, g.height - top);
    for (Size dy = std::max<Size>(0, -top); dy < end; ++dy) {
      const Byte* line = image + (top + dy) * g.width * g.channels;
      const auto place = [&](Size x) {
        const Size padded = g.pad_left + x;
        return patches + padded / g.block * patch + dy * run + padded % g.block * g.channels;
      };
      if (head) std::memcpy(place(0), line, head * g.channels);
      if (whole) copy_items(run, place(head), patch, line + head * g.channels, run, whole);
      if (tail) std::memcpy(place(pixels - tail), line + (pixels - tail) * g.channels, tail * g.channels);
    }
    Byte* words = out + row * row_bytes;
    for (Size first = 0; first < lanes; first += g.cp) {
      const Size taken = std::min(g.cp, lanes - first);
      if (taken < g.word_bytes) std::memset(words, 0, row_bytes);
      copy_words(taken, words, g.word_bytes, patches + first, patch, g.cols);
      words += g.rows * row_bytes;
    }
  }
#ifdef __SSE2__
  _mm_sfence();  // before the device is started
#endif
}
