// Runs a network on images in a file: simulate IMAGES COUNT OUT [--trace] [--depth NAME=WORDS]...
//
// IMAGES and OUT.features hold doubles; OUT.fifos and OUT.order are text (see dataflow.h). Writes "percent" for each hundredth of the way.
// Ends with 3 for a deadlock and 1 for any other error, said on the standard error.

#include <cstring>
#include <exception>
#include <fstream>
#include <vector>

#include "dataflow.h"

extern const std::size_t INPUT_SIZE, OUTPUT_SIZE;
void simulate(double *images, double *features, std::size_t count);

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
    if (argc < 4) throw std::runtime_error("usage: simulate IMAGES COUNT OUT [--trace] [--depth NAME=WORDS]...");
    dataflow::Run &run = dataflow::run();
    run.images = std::stoul(argv[2]);
    for (int i = 4; i < argc; ++i) {
        if (std::strcmp(argv[i], "--trace") == 0) {
            run.trace = true;
            continue;
        }
        const std::string depth = i + 1 < argc && std::strcmp(argv[i], "--depth") == 0 ? argv[++i] : "";
        const std::size_t equals = depth.find('=');
        if (equals == std::string::npos) throw std::runtime_error(std::string("cannot understand ") + argv[i]);
        run.depths[depth.substr(0, equals)] = std::stoul(depth.substr(equals + 1));
    }
    std::vector<double> images(run.images * INPUT_SIZE), features(run.images * OUTPUT_SIZE);
    load(argv[1], images);
    simulate(images.data(), features.data(), run.images);
    const std::string out = argv[3], fifos = run.fifos.str(), order = run.order.str();
    save(out + ".features", reinterpret_cast<const char *>(features.data()), features.size() * sizeof(double));
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
