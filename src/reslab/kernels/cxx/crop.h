// The augmentation of Sec. 4.2 for images in memory, with their preprocessing, in one pass.
#pragma once

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

// Write a crop of one image, [side][side][3], mirrored if `flip`.
static void crop_image(const ImageSet& set, const uint8_t* image, Corner corner, bool flip,
                       float* to) {
    const int side = set.side;
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++, to += 3) {
            const int row = y + corner.row, column = (flip ? side - 1 - x : x) + corner.column;
            if (row < 0 || row >= side || column < 0 || column >= side) {
                to[0] = to[1] = to[2] = 0;
                continue;
            }
            const uint8_t* pixel = image + row * set.row + column * set.column;
            for (int c = 0; c < 3; c++) {
                float value = float(pixel[c * set.channel]) - set.mean[(row * side + column) * 3 + c];
                if (set.std) value /= set.std[c];
                to[set.reversed ? 2 - c : c] = value;
            }
        }
}
