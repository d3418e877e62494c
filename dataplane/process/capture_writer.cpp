// SPDX-License-Identifier: Apache-2.0
#include "dataplane/process/capture_writer.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_pcapng.h>
#include <rte_ring.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "dataplane/abi/segment.hpp"

namespace sluice {
namespace {

constexpr std::uint64_t second = 1'000'000'000;
// Who wants a capture asks several times a second.
constexpr std::uint64_t forgotten_after_ns = 5 * second;
// Copies that wait for the file: 40 ms of 100,000 packets a second.
constexpr unsigned waiting_copies = 4095;
constexpr std::uint32_t usual_frame = 2048;
constexpr std::uint16_t write_burst = 32;

std::uint64_t now_ns() {
  return abi::clock_ns(CLOCK_MONOTONIC);
}

}  // namespace

tl::expected<void, std::string> capture_writer::start(const capture_request& request) {
  const std::lock_guard lock{control_};
  if (running_.load(std::memory_order_acquire))
    return tl::unexpected{std::string{"another capture is running; end that one first"}};
  if (thread_.joinable()) thread_.join();
  if (request.path.empty() || request.path.front() != '/')
    return tl::unexpected{std::string{"the path of the file must be absolute"}};
  const int file = ::open(request.path.c_str(),
                          O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
  if (file < 0) return tl::unexpected{request.path + ": " + std::strerror(errno)};
  // A pipe that nobody reads would hold up the end of the capture, and of the process.
  if (struct stat st{}; ::fstat(file, &st) != 0 || S_ISFIFO(st.st_mode)) {
    ::close(file);
    return tl::unexpected{request.path + ": is a pipe; expected a file"};
  }
  current_.filter = request.filter;
  current_.snap = std::clamp<std::uint32_t>(request.snap, 64, 65535);
  current_.missed.store(0, std::memory_order_relaxed);
  current_.pool = rte_pktmbuf_pool_create(
      "capture", waiting_copies, 0, 0,
      static_cast<std::uint16_t>(RTE_PKTMBUF_HEADROOM + rte_pcapng_mbuf_size(usual_frame)),
      SOCKET_ID_ANY);
  current_.ring = rte_ring_create("capture", waiting_copies + 1, SOCKET_ID_ANY, RING_F_SC_DEQ);
  if (current_.pool == nullptr || current_.ring == nullptr) {
    const std::string why = rte_strerror(rte_errno);
    finish();
    ::close(file);
    return tl::unexpected{"no memory for copies of packets: " + why +
                          "; more dataplane.memory in node.yaml helps"};
  }
  {
    const std::lock_guard text{text_};
    path_ = request.path;
    error_.clear();
  }
  written_.store(0, std::memory_order_relaxed);
  asked_ns_.store(now_ns(), std::memory_order_relaxed);
  stop_.store(false, std::memory_order_relaxed);
  running_.store(true, std::memory_order_release);
  thread_ = std::thread{[this, file, request] { run(file, request); }};
  pthread_setname_np(thread_.native_handle(), "sluice-capture");
  spdlog::info("capture to {}", request.path);
  return {};
}

void capture_writer::run(int file, capture_request request) {
  const auto failed = [this](std::string why) {
    const std::lock_guard text{text_};
    error_ = std::move(why);
  };
  rte_pcapng_t* const out = rte_pcapng_fdopen(file, nullptr, nullptr, "sluice", nullptr);
  if (out == nullptr) {
    failed(request.path + ": " + rte_strerror(rte_errno));
    ::close(file);
  } else {
    wanted_.store(&current_, std::memory_order_seq_cst);
    const std::uint64_t until =
        request.seconds == 0 ? UINT64_MAX : now_ns() + request.seconds * second;
    std::uint64_t written = 0;
    bool last = false;
    while (!last) {
      // One more turn after the end was seen: what was captured before it is written.
      const std::uint64_t now = now_ns();
      // Not a difference: somebody may have asked since `now`.
      if (now > asked_ns_.load(std::memory_order_relaxed) + forgotten_after_ns) {
        failed("nobody asked about the capture for 5 s");
        stop_.store(true, std::memory_order_relaxed);
      }
      if (stop_.load(std::memory_order_relaxed) || now >= until) {
        wanted_.store(nullptr, std::memory_order_seq_cst);
        while (used_(&current_)) std::this_thread::sleep_for(std::chrono::microseconds{100});
        last = true;
      }
      for (;;) {
        std::array<rte_mbuf*, write_burst> some{};
        const std::uint64_t room = request.count == 0 ? write_burst : request.count - written;
        const unsigned n = rte_ring_sc_dequeue_burst(
            current_.ring, reinterpret_cast<void**>(some.data()),
            static_cast<unsigned>(std::min<std::uint64_t>(room, write_burst)), nullptr);
        if (n == 0) break;
        const ssize_t bytes =
            rte_pcapng_write_packets(out, some.data(), static_cast<std::uint16_t>(n));
        const int error = errno;
        // It does not, whatever its documentation says.
        rte_pktmbuf_free_bulk(some.data(), n);
        if (bytes < 0) {
          failed(request.path + ": cannot be written: " + std::strerror(error));
          last = true;
          break;
        }
        written += n;
        written_.store(written, std::memory_order_relaxed);
        if (request.count != 0 && written >= request.count) {
          last = true;
          break;
        }
      }
      if (!last) std::this_thread::sleep_for(std::chrono::milliseconds{2});
    }
    wanted_.store(nullptr, std::memory_order_seq_cst);
    while (used_(&current_)) std::this_thread::sleep_for(std::chrono::microseconds{100});
    rte_pcapng_close(out);
  }
  finish();
  spdlog::info("capture to {} ended: {} packets", request.path,
               written_.load(std::memory_order_relaxed));
  running_.store(false, std::memory_order_release);
}

// finish() gives back what no worker uses any more.
void capture_writer::finish() {
  void* waiting = nullptr;
  while (current_.ring != nullptr && rte_ring_dequeue(current_.ring, &waiting) == 0)
    rte_pktmbuf_free(static_cast<rte_mbuf*>(waiting));
  rte_ring_free(current_.ring);
  rte_mempool_free(current_.pool);
  current_.ring = nullptr;
  current_.pool = nullptr;
}

capture_status capture_writer::status() {
  asked_ns_.store(now_ns(), std::memory_order_relaxed);
  capture_status out;
  out.running = running_.load(std::memory_order_acquire);
  out.written = written_.load(std::memory_order_relaxed);
  out.missed = current_.missed.load(std::memory_order_relaxed);
  const std::lock_guard text{text_};
  out.path = path_;
  out.error = error_;
  return out;
}

capture_status capture_writer::stop() {
  const std::lock_guard lock{control_};
  stop_.store(true, std::memory_order_relaxed);
  if (thread_.joinable()) thread_.join();
  return status();
}

}  // namespace sluice
