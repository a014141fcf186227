// The trunk of a 6n+2 net (Sec. 4.2): all of it but the classifier, forward and backward.
//
// A node is a ReLU's output `a` = ReLU(batch norm(z) + shortcut), where z is the convolution of the
// node before; node 0 holds the images. A pass over the images computes z of one node and, while
// the image is in the cache, first finishes `a` of the node before, whose statistics are now known.
//
// Images are divided into chunks of a fixed number. Each chunk has sums of its own, added in the
// order of the chunks: the bits depend neither on the number of threads nor on their timing.
#include "backward.h"
#include "crop.h"
#include "forward.h"
#include "sgd.h"

static Conv new_conv(int in, int out, int kernel, int stride, int side) {
    Conv conv{};
    conv.in = in, conv.out = out, conv.kernel = kernel, conv.stride = stride, conv.side = side;
    return conv;
}

// Allocate the memory that every image uses again; `row` is the longest row of a map.
static void allocate_workspaces(Trunk& trunk, int threads, size_t row) {
    size_t values = 0, weight_values = 0;
    for (const Node& node : trunk.nodes) {
        if (!node.conv.by_winograd) continue;
        values = std::max(values, TileBatch::size(node.conv));
        weight_values = std::max(weight_values, POINTS * weights_step(node.channels));
    }
    trunk.weight_values.resize(weight_values);
    trunk.workspaces.resize(threads);
    for (auto& workspace : trunk.workspaces) {
        for (const Node& node : trunk.nodes) {
            const int stage = trunk.stage(node);
            if (node.channels == 4 || workspace.dz[stage]) continue;
            workspace.dz[stage].resize(2 * node.padded());
            workspace.a[stage].resize(TileBatch::most(node.conv) * node.padded());
        }
        workspace.scratch.resize(2 * GRADIENT_ROWS * GROUP * row);
        for (auto& map : workspace.values) map.resize(values);
        workspace.weight_sums.resize(weight_values);
    }
}

// ---- the functions that Python calls. `tensors` and `gradients` have an entry for each
// convolution: that of the main path, then the projection that is added to it.

extern "C" {

// `crops` are channels last, [count][side][side][3].
void crop_images(const ImageSet* set, int count, const int64_t* indices, const Corner* corners,
                 const bool* flips, float* crops, int threads) {
    in_parallel(count, threads, [&](int k) {
        crop_image(*set, set->pixels + indices[k] * set->image, corners[k], flips[k],
                   crops + size_t(k) * set->side * set->side * 3);
    });
}

void sgd_step_all(const SgdTensor* tensors, int count, float momentum, int threads) {
    const unsigned mode = _mm_getcsr();  // see `in_parallel`; here tensors differ in size
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int k = 0; k < count; k++) {
        _mm_setcsr(mode);
        sgd_step(tensors[k], momentum);
    }
}

// Return a trunk for at most `capacity` images, or null if the memory does not suffice. `layers`
// holds for each convolution of the main path: output channels, stride, Shortcut.
void* trunk_create(int side, int capacity, int threads, int count, const int (*layers)[3]) try {
    auto trunk = std::make_unique<Trunk>();
    trunk->side = side, trunk->threads = threads;
    trunk->nodes.resize(count + 1);
    trunk->nodes[0].side = side, trunk->nodes[0].channels = 4;
    trunk->nodes[0].a.resize(capacity * trunk->nodes[0].padded());
    size_t map = 0, row = 0, weights = 0, projected = 0;
    for (int number = 1; number <= count; number++) {
        const auto [channels, stride, shortcut] = layers[number - 1];
        Node &node = trunk->nodes[number], &before = trunk->nodes[number - 1];
        node.side = before.side / stride, node.channels = channels;
        node.shortcut = Shortcut(shortcut);
        node.conv = new_conv(before.channels, channels, 3, stride, node.side);
        const bool has_projection_beside = number < count && layers[number][2] == PROJECTION;
        node.conv.by_winograd = !has_projection_beside && fits_winograd(node.conv);
        const bool is_source = number + 2 <= count && layers[number + 1][2] != NONE;
        if (node.shortcut != NONE || is_source) node.a.resize(capacity * node.padded());
        node.z.resize(capacity * node.plain());
        if (shortcut == PROJECTION) {
            const Node& source = trunk->nodes[number - 2];
            node.projection =
                new_conv(source.channels, channels, 1, source.side / node.side, node.side);
            node.projected.resize(capacity * node.plain());
            projected = std::max(projected, node.projection.weights());
        }
        map = std::max(map, node.plain());
        row = std::max<size_t>(row, row_step(before.side, before.channels) + LANES);
        weights = std::max(weights, node.conv.weights());
    }
    const size_t chunks = (capacity + CHUNK - 1) / CHUNK;
    for (auto& g : trunk->gradients) g.resize(capacity * map);
    trunk->sums.resize(chunks * 3 * MOST_CHANNELS);
    trunk->weight_sums[0].resize(chunks * weights);
    trunk->weight_sums[1].resize(chunks * projected);
    allocate_workspaces(*trunk, threads, row);
    return trunk.release();
} catch (const std::bad_alloc&) {
    return nullptr;
}

void trunk_destroy(void* trunk) { delete (Trunk*)trunk; }

void trunk_pack(void* trunk, const Tensors* tensors) { pack_weights(*(Trunk*)trunk, tensors); }

// `images` are channels last, [count][side][side][3]; `features` [count][channels].
void trunk_forward(void* handle, const float* images, int count, const Tensors* tensors,
                   double momentum, double epsilon, float* features) {
    Trunk& trunk = *(Trunk*)handle;
    trunk.images = count;
    const int last = int(trunk.nodes.size()) - 1;
    for (int number = 1; number <= last; number++, tensors++) {
        Node& node = trunk.nodes[number];
        forward_pass(trunk, node, number, images, *tensors, momentum, epsilon);
        if (node.shortcut != PROJECTION) continue;
        tensors++;
        projection_pass(trunk, node, number, *tensors, momentum, epsilon);
    }
    const Node& node = trunk.nodes[last];
    trunk.for_each_image([&](int image, int, Workspace& workspace) {
        const Stored* a = activate(trunk, last, image, workspace);
        pool(a, node.side, node.channels, features + image * node.channels);
    });
}

// Compute the gradients of all weights from that of the features of the last forward pass. Add them
// to what `gradients` holds if `add`.
void trunk_backward(void* handle, const float* features, int entries, const Gradients* gradients,
                    bool add) {
    Trunk& trunk = *(Trunk*)handle;
    const size_t last = trunk.nodes.size() - 1;
    const Gradients *entry = gradients + entries, *beside = nullptr;
    unpool(trunk, features);
    for (size_t number = last; number >= 1; number--) {
        Node& node = trunk.nodes[number];
        const auto total = trunk.total();
        const double* sums = total.data();
        const Gradients* projection = node.shortcut == PROJECTION ? --entry : nullptr;
        const Gradients* main = --entry;
        set_backward(node.conv, sums, sums + MOST_CHANNELS, trunk.images, *main, add);
        if (projection)
            set_backward(node.projection, sums, sums + 2 * MOST_CHANNELS, trunk.images,
                         *projection, add);
        backward_pass(trunk, number);
        write_weight_gradient(trunk, node.conv, trunk.weight_sums[0], main->weight, add);
        if (beside)
            write_weight_gradient(trunk, trunk.nodes[number + 1].projection,
                                  trunk.weight_sums[1], beside->weight, add);
        beside = projection;
    }
}
}
