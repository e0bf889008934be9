#include "traffic.h"

#include <algorithm>
#include <sstream>

#include "module.h"

namespace emulator::trace {

constexpr uintptr_t kSector = 32;

void Traffic::access(const Buffer& buffer, unsigned thread, uintptr_t at, unsigned bytes,
                     bool write, uintptr_t code) {
  const unsigned visit = visits_[code * 1024 + thread]++;
  const uint64_t group = static_cast<uint64_t>(thread / 32) << 32 | visit;
  Request& request =
      requests_.try_emplace({code, group}, Request{code, &buffer, write, {}}).first->second;
  for (uintptr_t s = at / kSector; s <= (at + bytes - 1) / kSector; ++s) {
    request.sectors.push_back(s);
  }
  Site& site = sites_.try_emplace(code, Site{write, bytes}).first->second;
  ++site.lanes;
  site.bytes += bytes;
  flows_[{buffer.name, write}].bytes += bytes;
}

void Traffic::end_block() {
  for (auto& [key, request] : requests_) {
    std::vector<uintptr_t>& sectors = request.sectors;
    std::sort(sectors.begin(), sectors.end());
    sectors.erase(std::unique(sectors.begin(), sectors.end()), sectors.end());
    Site& site = sites_.at(request.code);
    ++site.requests;
    site.sectors += static_cast<int64_t>(sectors.size());
    Flow& flow = flows_[{request.buffer->name, request.write}];
    flow.sectors += static_cast<int64_t>(sectors.size());
    const uintptr_t first = reinterpret_cast<uintptr_t>(request.buffer->data) / kSector;
    flow.touched.resize(request.buffer->size / kSector + 2);
    for (const uintptr_t s : sectors) {
      flow.distinct += !flow.touched[s - first];
      flow.touched[s - first] = true;
    }
  }
  requests_.clear();
  visits_.clear();
}

std::string Traffic::report() const {
  std::ostringstream out;
  for (const auto& [code, s] : sites_) {
    out << "site\t" << offset_in_module(code) << '\t' << s.write << '\t' << s.width << '\t'
        << s.requests << '\t' << s.lanes << '\t' << s.bytes << '\t' << s.sectors << '\n';
  }
  for (const auto& [key, f] : flows_) {
    out << "flow\t" << key.first << '\t' << key.second << '\t' << f.bytes << '\t' << f.sectors
        << '\t' << f.distinct << '\n';
  }
  return out.str();
}

}  // namespace emulator::trace
