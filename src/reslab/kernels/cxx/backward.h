// The backward passes over all images: one for each node.
#pragma once

#include "forward.h"
#include "weight_gradient.h"

// Return the rest of the work on the gradient of a node's `a`.
static InputGradient gradient_of(Trunk& trunk, size_t number, size_t image, const Stored* a,
                                 int chunk) {
    const Node& node = trunk.nodes[number];
    InputGradient to{};
    to.g = trunk.g_of(number, image);
    to.a = a;
    if (number + 2 < trunk.nodes.size() && trunk.nodes[number + 2].shortcut == UNWEIGHTED)
        to.skip = trunk.g_of(number + 2, image);
    to.z = node.z + image * node.plain();
    to.mean = node.conv.norm.mean;
    if (node.shortcut == PROJECTION) {
        to.projected = node.projected + image * node.plain();
        to.projected_mean = node.projection.norm.mean;
    }
    to.sums = trunk.sums_of(chunk);
    return to;
}

// Return `a` of one image after the forward pass.
static const Stored* recall(const Trunk& trunk, int number, size_t image,
                            const Workspace& workspace, int slot = 0) {
    if (trunk.nodes[number].kept()) return trunk.a_of(number, image, workspace);
    return activate(trunk, number, image, workspace, slot);
}

// Compute the gradient of the last node from that of the pooled features.
static void unpool(Trunk& trunk, const float* features) {
    const size_t last = trunk.nodes.size() - 1;
    const int side = trunk.nodes[last].side, channels = trunk.nodes[last].channels;
    trunk.for_each_image([&](int image, int chunk, Workspace& workspace) {
        const Stored* a = recall(trunk, last, image, workspace);
        const InputGradient to = gradient_of(trunk, last, image, a, chunk);
        for (int c = 0; c < channels; c += LANES) {
            const Vector number =
                load_fp32(features + size_t(image) * channels + c) / float(side * side);
            for (int y = 0; y < side; y++) {
                ChannelSums sums(to, c);
                for (int x = 0; x < side; x++)
                    sums.finish(number, (size_t(y) * side + x) * channels + c,
                                (size_t(y + 1) * (side + 2) + x + 1) * channels + c);
                sums.add();
            }
        }
    });
}

// Compute dz, the padded gradient of a convolution's output, from g, that of its norm's output.
template <int CHANNELS>
static void norm_gradient(const Norm& norm, int side, const Stored* g, const Stored* z,
                          Stored* dz) {
    dz += first_pixel(side, CHANNELS);
    for (int c = 0; c < CHANNELS; c += LANES) {
        const Backward backward(norm, c);  // in registers
        for (int y = 0; y < side; y++) {
            const size_t place = size_t(y) * side * CHANNELS + c;
            Stored* row = dz + y * row_step(side, CHANNELS) + c;
            for (int x = 0; x < side * CHANNELS; x += CHANNELS)
                store(row + x, backward(load(g + place + x), load(z + place + x)));
        }
    }
}

// Compute dz of one image, and add its part of the weight gradient.
template <int KERNEL, int IN, int OUT>
static void output_gradient(const Conv& conv, const Stored* x, const Stored* g, const Stored* z,
                            Stored* dz, float* weight_sums, Stored* scratch, Ahead ahead = {}) {
    norm_gradient<OUT>(conv.norm, conv.side, g, z, dz);
    weight_gradient<IN, OUT, stride_of(IN, OUT), KERNEL>(conv.side, x, dz, weight_sums, scratch,
                                                         ahead);
}

static void write_weight_gradient(Trunk& trunk, const Conv& conv, const float* sums,
                                  float* gradient, bool add) {
    const int channels = gradient_channels(conv.in, conv.kernel), blocks = conv.in / channels;
    in_parallel(conv.kernel * blocks, trunk.threads, [&](int block) {
        reduce_weight_gradient(conv, sums, trunk.chunks(), block / blocks,
                               block % blocks * channels, gradient, add);
    });
}

static void set_backward(Conv& conv, const double* g, const double* gz, int images,
                         const Gradients& gradients, bool add) {
    conv.norm.set_backward(g, gz, conv.out, double(images) * conv.pixels(), gradients.gamma,
                           gradients.beta, add);
}

// Finishes the elements of an input's gradient in one of Winograd's tiles.
template <int CHANNELS>
struct TileOfGradient {
    ChannelSums sums;
    const int side;
    const size_t place, padded;  // of the first pixel, see `ChannelSums::finish`

    INLINE_MEMBER TileOfGradient(const InputGradient& to, int side, int y, int x, int c)
        : sums(to, c),
          side(side),
          place((y * side + x) * CHANNELS + c),
          padded(((y + 1) * (side + 2) + x + 1) * CHANNELS + c) {}

    INLINE_MEMBER void take(Vector number, int i, int j) {
        sums.finish(number, place + i * side * CHANNELS + j * CHANNELS,
                    padded + i * (side + 2) * CHANNELS + j * CHANNELS);
    }
    INLINE_MEMBER void finish() const { sums.add(); }
};

// Do the work of `backward_pass` for one image by Winograd's convolution.
template <int CHANNELS>
static void backward_by_winograd(Trunk& trunk, int number, int image, int chunk, const Stored* x,
                                 float* sums, Workspace& workspace, Ahead ahead, Ahead ahead_next) {
    const Node &node = trunk.nodes[number], &input = trunk.nodes[number - 1];
    const Conv& conv = node.conv;
    const TileBatch batch(conv, image, trunk.images);
    const int here = batch.position * batch.tiles;
    Stored* dz = workspace.dz[trunk.stage(node)];
    const Values<CHANNELS> x_values{workspace.values[0]}, dz_values{workspace.values[1]};
    const Values<CHANNELS> tile_values{workspace.values[2]}, products = x_values;
    norm_gradient<CHANNELS>(conv.norm, conv.side, trunk.g_of(number, image),
                            node.z + image * node.plain(), dz);
    evaluate<WindowValues>(x, conv.side, x_values, here, ahead);
    evaluate<WindowValues>(dz, conv.side, dz_values, here, ahead_next);
    evaluate<TileValues>(dz, conv.side, tile_values, here);
    if (!batch.complete) return;
    const int first = image - batch.position, tiles = batch.images * batch.tiles;
    multiply_gradients(x_values, tile_values, tiles, workspace.weight_sums, first % CHUNK != 0);
    if ((image + 1) % CHUNK == 0 || image + 1 == trunk.images)
        interpolate_weights<CHANNELS>(workspace.weight_sums, sums);
    multiply_values(dz_values, trunk.weight_values, tiles, products);
    for (int k = 0; k < batch.images; k++) {
        const Stored* a = trunk.a_of(number - 1, first + k, workspace, k);
        const InputGradient to = gradient_of(trunk, number - 1, first + k, a, chunk);
        interpolate(products, k * batch.tiles, input.side, [&](int y, int x, int c) {
            return TileOfGradient<CHANNELS>(to, input.side, y, x, c);
        });
    }
}

// Compute the gradients of a node's weights, and of the node before with its norms.
static void backward_pass(Trunk& trunk, size_t number) {
    Node& node = trunk.nodes[number];
    const Node& input = trunk.nodes[number - 1];
    const Conv& conv = node.conv;
    Node* beside = number + 1 < trunk.nodes.size() ? &trunk.nodes[number + 1] : nullptr;
    if (beside && beside->shortcut != PROJECTION) beside = nullptr;
    const size_t size = conv.weights(), projected_size = beside ? beside->projection.weights() : 0;
    if (conv.by_winograd) evaluate_weights(trunk, conv, true);
    trunk.for_each_image([&](int image, int chunk, Workspace& workspace) {
        float* sums = trunk.weight_sums[0] + chunk * size;
        float* projected_sums = trunk.weight_sums[1] + chunk * projected_size;
        if (image % CHUNK == 0) {
            std::fill_n(sums, size, 0.f);
            std::fill_n(projected_sums, projected_size, 0.f);
        }
        Stored *dz = workspace.dz[trunk.stage(node)], *projected_dz = dz + node.padded();
        const int slot = conv.by_winograd ? TileBatch(conv, image, trunk.images).position : 0;
        const Stored* x = recall(trunk, number - 1, image, workspace, slot);
        const size_t place = image * node.plain();
        Ahead ahead_here, ahead_next;
        InputGradient to{};
        if (number > 1) {
            to = gradient_of(trunk, number - 1, image, x, chunk);
            if (input.kept()) ahead_here.add(to.z, input.plain());
            if (to.skip) ahead_here.add(to.skip, trunk.nodes[number + 1].plain());
            if (conv.by_winograd) ahead_here.add(to.g, input.plain());  // to be written
        }
        if (image + 1 < trunk.images) {
            ahead_next.add(trunk.g_of(number, image + 1), node.plain());
            ahead_next.add(node.z + place + node.plain(), node.plain());
            if (input.kept()) ahead_next.add(x + input.padded(), input.padded());
            else ahead_next.add(input.z + (image + 1) * input.plain(), input.plain());
        }
        with_channels(conv, [&](auto in, auto out) {
            if constexpr (in == out)
                if (conv.by_winograd)
                    return backward_by_winograd<in>(trunk, number, image, chunk, x, sums,
                                                    workspace, ahead_here, ahead_next);
            output_gradient<3, in, out>(conv, x, trunk.g_of(number, image), node.z + place, dz,
                                        sums, workspace.scratch, ahead_here);
            if (number == 1) return;
            if constexpr (in >= LANES) {
                if (beside)
                    output_gradient<1, in, out>(
                        beside->projection, x, trunk.g_of(number + 1, image),
                        beside->projected + place, projected_dz, projected_sums,
                        workspace.scratch);
                input_gradient<in, out>(conv, dz, beside ? &beside->projection : nullptr,
                                        projected_dz, to, ahead_next);
            }
        });
    });
}
