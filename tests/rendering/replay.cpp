// Repeats recorded calls of the kernels on another kind of processor: `replay LIBRARY RECORD RESULTS` (test_arm.py).
// RECORD, little-endian: number of calls; then for each its name's length, name, number of arguments and arguments. An
// argument is its kind and a 64-bit value: a number, nothing (a null pointer), the length of the bytes that follow, or the
// number of a workspace. RESULTS gets every argument's bytes as each call left them.
#include <dlfcn.h>
#include <omp.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace {

enum Kind : int32_t { kNumber, kNull, kBytes, kWorkspace };
constexpr size_t kMostArguments = 32;
constexpr size_t kAlignment = 64;

// Of 64-bit integers and pointers each takes one register or one stack slot of 8 bytes, whatever the declaration says, on
// x86 and on ARM under Linux; superfluous ones are not looked at.
using Arguments = int64_t[kMostArguments];
using Function = int (*)(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                         int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                         int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);

[[noreturn]] void fail(const std::string& message) {
    std::fprintf(stderr, "replay: %s\n", message.c_str());
    std::exit(1);
}

void* symbol(void* library, const std::string& name) {
    void* found = dlsym(library, name.c_str());
    if (!found) fail("no " + name);
    return found;
}

template <class T>
T read(std::istream& in) {
    T value;
    if (!in.read(reinterpret_cast<char*>(&value), sizeof value)) fail("the record ends early");
    return value;
}

struct Block {
    char* data;
    size_t size;
};

Block read_block(std::istream& in, size_t size) {
    const size_t rounded = (size + kAlignment) / kAlignment * kAlignment;
    const Block block{static_cast<char*>(std::aligned_alloc(kAlignment, rounded)), size};
    if (size && !in.read(block.data, static_cast<std::streamsize>(size))) fail("the record ends early");
    return block;
}

int call(Function function, const Arguments& a) {
    return function(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15],
                    a[16], a[17], a[18], a[19], a[20], a[21], a[22], a[23], a[24], a[25], a[26], a[27], a[28], a[29], a[30],
                    a[31]);
}

void replay_one(void* library, std::istream& in, std::ostream& out, std::map<int64_t, void*>& workspaces) {
    std::string name(static_cast<size_t>(read<int64_t>(in)), ' ');
    in.read(name.data(), static_cast<std::streamsize>(name.size()));
    const auto count = static_cast<size_t>(read<int64_t>(in));
    if (count > kMostArguments) fail(name + " has too many arguments");
    Arguments arguments{};
    std::vector<Block> blocks;
    for (size_t i = 0; i < count; i++) {
        const auto kind = static_cast<Kind>(read<int64_t>(in));
        const int64_t value = read<int64_t>(in);
        if (kind == kNumber) arguments[i] = value;
        if (kind == kBytes) {
            blocks.push_back(read_block(in, static_cast<size_t>(value)));
            arguments[i] = reinterpret_cast<int64_t>(blocks.back().data);
        }
        if (kind == kWorkspace) {
            void*& workspace = workspaces[value];
            if (!workspace) workspace = reinterpret_cast<void* (*)()>(symbol(library, "closeup_workspace_take"))();
            arguments[i] = reinterpret_cast<int64_t>(workspace);
        }
    }
    if (call(reinterpret_cast<Function>(symbol(library, name)), arguments) != 0) fail(name + " failed");
    for (const Block& block : blocks) {
        out.write(block.data, static_cast<std::streamsize>(block.size));
        std::free(block.data);
    }
}

}  // namespace

int main(int count, char** words) {
    if (count != 4) fail("usage: replay LIBRARY RECORD RESULTS");
    omp_set_dynamic(0);  // also makes the linker keep the OpenMP runtime, which the library expects to find
    void* library = dlopen(words[1], RTLD_NOW);
    if (!library) fail(dlerror());
    std::ifstream in(words[2], std::ios::binary);
    std::ofstream out(words[3], std::ios::binary);
    std::map<int64_t, void*> workspaces;
    for (auto calls = read<int64_t>(in); calls > 0; calls--) replay_one(library, in, out, workspaces);
    std::printf("%s\n", reinterpret_cast<const char* (*)()>(symbol(library, "closeup_lanes"))());
    return out.flush() ? 0 : 1;
}
