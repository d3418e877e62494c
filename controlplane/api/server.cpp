// SPDX-License-Identifier: Apache-2.0
#include "controlplane/api/server.hpp"

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

#include <httplib.h>

#include "controlplane/api/limited_stream.hpp"
#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::api {
namespace {

constexpr std::size_t threads = 32;  // most of them sleep
constexpr unsigned requests_per_connection = 100;
constexpr std::size_t max_field = 200;  // characters of author and reason

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> out;
  std::size_t at = 0;
  while (at < path.size()) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    if (end != at) out.push_back(path.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

// answers() tells whether a process listens on a socket.
bool answers(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return true;
  const int done = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const bool nobody = done != 0 && (errno == ECONNREFUSED || errno == ENOENT);
  ::close(fd);
  return !nobody;
}

// limited_server: httplib's server, with time limits that a client cannot stretch.
class limited_server final : public httplib::Server {
 public:
  explicit limited_server(const time_limits& limits)
      : limits_{limits}, stop_fd_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)} {
    keep_alive_max_count_ = requests_per_connection;
  }
  ~limited_server() override {
    if (stop_fd_ >= 0) ::close(stop_fd_);
  }
  limited_server(const limited_server&) = delete;
  limited_server& operator=(const limited_server&) = delete;

  // end() is stop() that does not wait for clients.
  void end() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto n = ::write(stop_fd_, &one, sizeof one);
    stop();
  }

 private:
  bool process_and_close_socket(socket_t fd) override {
    limited_stream stream{fd, stop_fd_, limits_};
    bool fine = false;
    for (unsigned left = requests_per_connection; left > 0 && stream.await_request(); --left) {
      bool closed = false;
      fine = process_request(stream, left == 1, closed, nullptr);
      if (!fine || closed) break;
    }
    ::shutdown(fd, SHUT_RDWR);
    ::close(fd);
    return fine;
  }

  time_limits limits_;
  int stop_fd_;
};

// printable() keeps what a client calls itself from writing to the operator's terminal.
std::string printable(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) c = '?';
  return text;
}

void fill(httplib::Response& to, const reply& from) {
  to.status = from.status;
  to.set_content(from.body, from.type);
  if (!from.etag.empty()) to.set_header("ETag", from.etag);
}

request make_request(const httplib::Request& from) {
  request r;
  r.method = from.method;
  r.segments = split(from.path);
  for (const auto& [key, value] : from.params) r.query.emplace(key, value);
  r.author = printable(from.get_header_value("X-Sluice-Author").substr(0, max_field));
  r.reason = printable(from.get_header_value("X-Sluice-Reason").substr(0, max_field));
  r.if_match = from.get_header_value("If-Match").substr(0, max_field);
  return r;
}

}  // namespace

class server::impl {
 public:
  impl(std::string path, handler handle, const time_limits& limits)
      : path_{std::move(path)}, handle_{std::move(handle)}, http_{limits} {
    http_.set_address_family(AF_UNIX);
    http_.new_task_queue = [] { return new httplib::ThreadPool{threads}; };
    http_.set_payload_max_length(yaml::max_bytes);
    http_.set_keep_alive_timeout(limits.idle.count() / 1000);  // what the header says
    const auto plain = [this](const httplib::Request& in, httplib::Response& out) {
      fill(out, handle_(make_request(in)));
    };
    // The body is read here: httplib itself would cut what curl sends as a form.
    const auto with_body = [this](const httplib::Request& in, httplib::Response& out,
                                  const httplib::ContentReader& read) {
      request r = make_request(in);
      bool too_large = false;
      if (in.is_multipart_form_data())
        return fill(out, refuse(400, "the body is one JSON or YAML document, not a form"));
      read([&](const char* data, std::size_t n) {
        too_large = r.body.size() + n > yaml::max_bytes;
        if (!too_large) r.body.append(data, n);
        return !too_large;
      });
      if (out.status == 413 || too_large)
        return fill(out, refuse(413, "the body is larger than 16 MiB"));
      if (out.status >= 400) return;
      fill(out, handle_(r));
    };
    const std::string any = R"([\s\S]*)";
    http_.Get(any, plain);
    http_.Options(any, plain);
    http_.Put(any, with_body);
    http_.Post(any, with_body);
    http_.Patch(any, with_body);
    http_.Delete(any, with_body);
    http_.set_error_handler([](const httplib::Request&, httplib::Response& out) {
      if (!out.body.empty()) return;
      const char* text = out.status == 413   ? "the body is larger than 16 MiB"
                         : out.status == 414 ? "the path is too long"
                                             : "the request cannot be understood";
      fill(out, refuse(out.status, text));
    });
    http_.set_exception_handler(
        [](const httplib::Request&, httplib::Response& out, std::exception_ptr e) {
          std::string text = "internal error";
          try {
            std::rethrow_exception(std::move(e));
          } catch (const std::exception& known) {
            text += std::string{": "} + known.what();
          } catch (...) {
          }
          fill(out, refuse(500, text));
        });
  }

  tl::expected<void, std::string> listen(unsigned mode) {
    if (path_.size() >= sizeof(sockaddr_un{}.sun_path))
      return tl::unexpected{path_ + ": longer than a socket's name may be"};
    struct stat st {};
    if (::lstat(path_.c_str(), &st) == 0) {
      if (!S_ISSOCK(st.st_mode)) return tl::unexpected{path_ + ": is there, and not a socket"};
      if (answers(path_)) return tl::unexpected{path_ + ": another process serves there"};
      ::unlink(path_.c_str());
    }
    // The socket is never there with more permissions than it shall have.
    const mode_t before = ::umask(~mode & 0777);
    const bool bound = http_.bind_to_port(path_, 1);
    const int why = errno;
    ::umask(before);
    if (!bound)
      return tl::unexpected{path_ + ": cannot listen: " + std::generic_category().message(why)};
    thread_ = std::thread{[this] { http_.listen_after_bind(); }};
    while (!http_.is_running()) std::this_thread::yield();
    return {};
  }

  void stop() {
    if (!thread_.joinable()) return;
    http_.end();
    thread_.join();
    ::unlink(path_.c_str());
  }

 private:
  std::string path_;
  handler handle_;
  limited_server http_;
  std::thread thread_;
};

server::server(std::unique_ptr<impl> i) : impl_{std::move(i)} {}
server::~server() {
  stop();
}

void server::stop() {
  impl_->stop();
}

tl::expected<std::unique_ptr<server>, std::string> server::listen(const std::string& path,
                                                                  unsigned mode, handler handle,
                                                                  const time_limits& limits) {
  auto i = std::make_unique<impl>(path, std::move(handle), limits);
  if (auto done = i->listen(mode); !done) return tl::unexpected{done.error()};
  return std::unique_ptr<server>{new server{std::move(i)}};
}

}  // namespace sluice::api
