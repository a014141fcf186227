// The forward passes over all images: one for each convolution.
#pragma once

#include "net.h"

static void copy_image(const float* image, int side, Stored* to) {
    to += first_pixel(side, 4);
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++)
            for (int c = 0; c < 3; c++)
                to[y * row_step(side, 4) + x * 4 + c] = stored(image[(y * side + x) * 3 + c]);
}

// Write `a` of one image, from z and the shortcut's source or its projection.
template <int CHANNELS>
static void activate(const Node& node, const Node* source, size_t image, Stored* a) {
    const bool skips = node.shortcut == UNWEIGHTED, projects = node.shortcut == PROJECTION;
    const int side = node.side;
    const Stored* z = node.z + image * node.plain();
    const Stored* projected = projects ? node.projected + image * node.plain() : z;
    const Stored* skip = nullptr;
    std::ptrdiff_t skip_row = 0;
    int skip_pixel = 0, skip_channels = 0;
    if (skips) {  // at every second row and pixel, where the map is halved
        const int stride = source->side / side;
        skip = source->a + image * source->padded() + first_pixel(source->side, source->channels);
        skip_row = stride * row_step(source->side, source->channels);
        skip_pixel = stride * source->channels;
        skip_channels = source->channels;
    }
    a += first_pixel(side, CHANNELS);
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++, z += CHANNELS, projected += CHANNELS)
            UNROLL for (int c = 0; c < CHANNELS; c += LANES) {
                Vector number = Forward(node.conv.norm, c)(load(z + c));
                if (projects) number += Forward(node.projection.norm, c)(load(projected + c));
                if (c < skip_channels) number += load(skip + y * skip_row + x * skip_pixel + c);
                store(a + y * row_step(side, CHANNELS) + x * CHANNELS + c, relu(number));
            }
}

// Write `a` of one image where it belongs, and return it.
static Stored* activate(const Trunk& trunk, int number, size_t image, const Workspace& workspace,
                        int slot = 0) {
    const Node& node = trunk.nodes[number];
    const Node* source = node.shortcut == NONE ? nullptr : &trunk.nodes[number - 2];
    Stored* a = trunk.a_of(number, image, workspace, slot);
    if (node.channels == 16) activate<16>(node, source, image, a);
    if (node.channels == 32) activate<32>(node, source, image, a);
    if (node.channels == 64) activate<64>(node, source, image, a);
    return a;
}

static void set_forward(Conv& conv, const Tensors& tensors, const double* sums, int images,
                        double momentum, double epsilon) {
    conv.norm.set_forward(sums, sums + MOST_CHANNELS, conv.out, double(images) * conv.pixels(),
                          tensors.gamma, tensors.beta, tensors.running_mean,
                          tensors.running_variance, momentum, epsilon);
}

// Return the memory that `forward_pass` reads and writes for an image.
static Ahead inputs_ahead(const Trunk& trunk, int number, int image) {
    Ahead ahead;
    if (image == trunk.images || number == 1) return ahead;
    const Node& input = trunk.nodes[number - 1];
    ahead.add(input.z + image * input.plain(), input.plain());
    if (input.shortcut == UNWEIGHTED) {
        const Node& source = trunk.nodes[number - 3];
        ahead.add(source.a + image * source.padded(), source.padded());
    }
    if (input.kept()) ahead.add(input.a + image * input.padded(), input.padded());  // to be written
    return ahead;
}

// Stores the elements of z in one of Winograd's tiles, and adds them to its statistics.
template <int CHANNELS>
struct TileOfZ {
    Stored* const z;  // of the first pixel
    const int side;
    double* const sums;
    Vector sum{}, squares{};

    INLINE_MEMBER void take(Vector number, int i, int j) {
        number = store(z + i * side * CHANNELS + j * CHANNELS, number);
        sum += number;
        squares += number * number;
    }
    INLINE_MEMBER void finish() const {
        add_lanes(sums, sum);
        add_lanes(sums + MOST_CHANNELS, squares);
    }
};

// Evaluate the weights of Winograd's convolution in parallel.
static void evaluate_weights(Trunk& trunk, const Conv& conv, bool backward) {
    in_parallel(conv.out / LANES, trunk.threads, [&](int block) {
        with_channels(conv, [&](auto in, auto out) {
            if constexpr (in == out)
                evaluate_weights<in>(conv.weights_now, backward, block * LANES,
                                     trunk.weight_values);
        });
    });
}

// Evaluate `a` of an image; if its batch of tiles is complete, compute z of the whole batch.
template <int CHANNELS>
static void convolve_by_winograd(Trunk& trunk, Node& node, int image, int chunk, const Stored* a,
                                 Workspace& workspace, Ahead ahead) {
    const TileBatch batch(node.conv, image, trunk.images);
    const Values<CHANNELS> values{workspace.values[0]}, products{workspace.values[1]};
    ahead.add(node.z + image * node.plain(), node.plain());  // to be written
    evaluate<WindowValues>(a, node.side, values, batch.position * batch.tiles, ahead);
    if (!batch.complete) return;
    multiply_values(values, trunk.weight_values, batch.images * batch.tiles, products);
    for (int k = 0; k < batch.images; k++) {
        Stored* z = node.z + (image - batch.position + k) * node.plain();
        interpolate(products, k * batch.tiles, node.side, [&](int y, int x, int c) {
            return TileOfZ<CHANNELS>{z + (y * node.side + x) * CHANNELS + c, node.side,
                                     trunk.sums_of(chunk) + c};
        });
    }
}

// Compute z of a node and its statistics; first finish the node before.
static void forward_pass(Trunk& trunk, Node& node, int number, const float* images,
                         const Tensors& tensors, double momentum, double epsilon) {
    const Node& input = trunk.nodes[number - 1];
    if (node.conv.by_winograd) evaluate_weights(trunk, node.conv, false);
    trunk.for_each_image([&](int image, int chunk, Workspace& workspace) {
        Stored* a = trunk.a_of(number - 1, image, workspace);
        if (number == 1) copy_image(images + image * 3 * input.pixels(), input.side, a);
        else activate(trunk, number - 1, image, workspace);
        const Ahead ahead = inputs_ahead(trunk, number, image + 1);
        with_channels(node.conv, [&](auto in, auto out) {
            if constexpr (in == out)
                if (node.conv.by_winograd)
                    return convolve_by_winograd<in>(trunk, node, image, chunk, a, workspace,
                                                    ahead);
            convolve<in, out>(node.conv, a, node.z + image * node.plain(),
                              trunk.sums_of(chunk), ahead);
        });
    });
    set_forward(node.conv, tensors, trunk.total().data(), trunk.images, momentum, epsilon);
}

// Compute the projection of a node's shortcut and its statistics, from two nodes before.
static void projection_pass(Trunk& trunk, Node& node, int number, const Tensors& tensors,
                            double momentum, double epsilon) {
    const Node& source = trunk.nodes[number - 2];
    trunk.for_each_image([&](int image, int chunk, Workspace&) {
        with_channels(node.projection, [&](auto in, auto out) {
            convolve<in, out>(node.projection, source.a + image * source.padded(),
                              node.projected + image * node.plain(), trunk.sums_of(chunk));
        });
    });
    set_forward(node.projection, tensors, trunk.total().data(), trunk.images, momentum, epsilon);
}

static void pack_weights(Trunk& trunk, const Tensors* tensors) {
    std::vector<Conv*> convs;
    for (size_t number = 1; number < trunk.nodes.size(); number++) {
        convs.push_back(&trunk.nodes[number].conv);
        if (trunk.nodes[number].shortcut == PROJECTION)
            convs.push_back(&trunk.nodes[number].projection);
    }
#pragma omp parallel for schedule(dynamic) num_threads(trunk.threads)
    for (size_t k = 0; k < convs.size(); k++) pack(*convs[k], tensors[k].weight);
}

static void pool(const Stored* a, int side, int channels, float* features) {
    a += first_pixel(side, channels);
    for (int c = 0; c < channels; c += LANES) {
        Vector sum{};
        for (int y = 0; y < side; y++)
            for (int x = 0; x < side; x++)
                sum += load(a + y * row_step(side, channels) + x * channels + c);
        store_fp32(features + c, sum / float(side * side));
    }
}
