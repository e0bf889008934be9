// What the accesses of a launch would move: the lanes of a warp that execute one instruction are
// one request, which takes as many sectors of 32 bytes as it touches.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "device_memory.h"

namespace emulator::trace {

class Traffic {
 public:
  void access(const Buffer& buffer, unsigned thread, uintptr_t at, unsigned bytes, bool write,
              uintptr_t code);
  void end_block();
  // A line per instruction and per buffer.
  std::string report() const;

 private:
  struct Site {
    bool write;
    unsigned width;
    int64_t requests = 0, lanes = 0, bytes = 0, sectors = 0;
  };
  struct Request {
    uintptr_t code;
    const Buffer* buffer;
    bool write;
    std::vector<uintptr_t> sectors;
  };
  // `distinct`: each sector counted once in the launch, as with a perfect cache.
  struct Flow {
    int64_t bytes = 0, sectors = 0, distinct = 0;
    std::vector<bool> touched;
  };

  std::map<uintptr_t, Site> sites_;
  std::map<std::pair<std::string, bool>, Flow> flows_;
  // Of the block that runs: how often a thread was at an instruction, and the requests so far.
  std::unordered_map<uint64_t, unsigned> visits_;
  std::map<std::pair<uintptr_t, uint64_t>, Request> requests_;
};

}  // namespace emulator::trace
