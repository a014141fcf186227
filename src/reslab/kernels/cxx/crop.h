// The augmentation of Sec. 4.2 for images in memory, with their preprocessing, in one pass.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

// 8-bit RGB images with their preprocessing. The layout is known to Python.
struct ImageSet {
    const uint8_t* pixels;
    int64_t image, channel, row, column;  // strides
    const float* mean;                    // [side][side][3], RGB
    const float* std;                     // [3], RGB, or null if all are one
    int side;
    bool reversed;  // whether the network sees BGR
};

// Where a crop begins in its image: negative or beyond the edge, it is padded with zeros.
struct Corner {
    int64_t row, column;
};

// Write `count` pixels of one row, which is read from `column` on, to `to` and then `step` further
// for each pixel.
static void crop_row(const ImageSet& set, const uint8_t* image, int row, int column, int count,
                     std::ptrdiff_t step, float* to) {
    const uint8_t* const pixels = image + row * set.row + column * set.column;
    const float* const mean = set.mean + (row * set.side + column) * 3;
    for (int c = 0; c < 3; c++) {  // of the image
        const uint8_t* const channel = pixels + c * set.channel;
        float* const out = to + (set.reversed ? 2 - c : c);
        if (set.std)
            for (int x = 0; x < count; x++)
                out[x * step] = (float(channel[x * set.column]) - mean[3 * x + c]) / set.std[c];
        else
            for (int x = 0; x < count; x++)
                out[x * step] = float(channel[x * set.column]) - mean[3 * x + c];
    }
}

// Write a crop of one image, [side][side][3], mirrored if `flip`.
static void crop_image(const ImageSet& set, const uint8_t* image, Corner corner, bool flip,
                       float* to) {
    const int side = set.side;
    const int first = std::max<int64_t>(corner.column, 0);
    const int last = std::min<int64_t>(corner.column + side, side);  // exclusive
    const int place = first - corner.column;                         // in the crop
    for (int y = 0; y < side; y++, to += 3 * side) {
        const int64_t row = y + corner.row;
        const bool inside = row >= 0 && row < side;
        if (!inside || last - first < side) std::fill_n(to, 3 * side, 0.f);
        if (inside)
            crop_row(set, image, row, first, last - first, flip ? -3 : 3,
                     to + 3 * (flip ? side - 1 - place : place));
    }
}
