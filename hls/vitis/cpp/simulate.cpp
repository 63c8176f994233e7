// Runs a network on images in a file: simulate IMAGES COUNT OUT [--beats] [--trace] [--depth NAME=WORDS]...
//
// IMAGES and OUT.features hold doubles, with --beats what beats.h says, for the network within its ports; OUT.fifos and OUT.order are text (see
// dataflow.h), of the last image with --beats. Writes "percent" for each hundredth of the way.
// Ends with 3 for a deadlock and 1 for any other error, said on the standard error.

#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <vector>

#include "dataflow.h"

extern const std::size_t INPUT_SIZE, OUTPUT_SIZE;
void simulate(double *images, double *features, std::size_t count);
void simulate_beats(const std::string &images, std::size_t count, std::string &features);

namespace {

void load(const std::string &path, std::vector<double> &values) {
    std::ifstream file(path, std::ios::binary);
    const std::streamsize bytes = static_cast<std::streamsize>(values.size() * sizeof(double));
    file.read(reinterpret_cast<char *>(values.data()), bytes);
    if (file.gcount() != bytes) throw std::runtime_error(path + " is too short for the images");
}

void save(const std::string &path, const char *data, std::size_t size) {
    std::ofstream file(path, std::ios::binary);
    file.write(data, static_cast<std::streamsize>(size));
    file.close();
    if (!file) throw std::runtime_error("cannot write " + path);
}

}  // namespace

int main(int argc, char **argv) try {
    if (argc < 4) throw std::runtime_error("usage: simulate IMAGES COUNT OUT [--beats] [--trace] [--depth NAME=WORDS]...");
    dataflow::Run &run = dataflow::run();
    run.images = std::stoul(argv[2]);
    bool beats = false;
    for (int i = 4; i < argc; ++i) {
        if (std::strcmp(argv[i], "--beats") == 0) {
            beats = true;
            continue;
        }
        if (std::strcmp(argv[i], "--trace") == 0) {
            run.trace = true;
            continue;
        }
        const std::string depth = i + 1 < argc && std::strcmp(argv[i], "--depth") == 0 ? argv[++i] : "";
        const std::size_t equals = depth.find('=');
        if (equals == std::string::npos) throw std::runtime_error(std::string("cannot understand ") + argv[i]);
        run.depths[depth.substr(0, equals)] = std::stoul(depth.substr(equals + 1));
    }
    const std::string out = argv[3];
    if (beats) {
        std::ifstream file(argv[1], std::ios::binary);
        const std::string images{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
        const std::size_t count = run.images;
        run.images = 1;   // of one call of the top function
        std::string features;
        simulate_beats(images, count, features);
        save(out + ".features", features.data(), features.size());
    } else {
        std::vector<double> images(run.images * INPUT_SIZE), features(run.images * OUTPUT_SIZE);
        load(argv[1], images);
        simulate(images.data(), features.data(), run.images);
        save(out + ".features", reinterpret_cast<const char *>(features.data()), features.size() * sizeof(double));
    }
    const std::string fifos = run.fifos.str(), order = run.order.str();
    save(out + ".fifos", fifos.data(), fifos.size());
    save(out + ".order", order.data(), order.size());
    return 0;
} catch (const dataflow::Deadlock &deadlock) {
    std::fprintf(stderr, "%s\n", deadlock.what());
    return 3;
} catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
