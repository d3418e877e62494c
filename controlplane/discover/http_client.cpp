// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/http_client.hpp"

#include <curl/curl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <utility>

#include "dataplane/abi/whole_file.hpp"

namespace sluice::discover {
namespace {

constexpr std::size_t largest_body = 4u << 20;
constexpr std::size_t largest_token = 64u << 10;
constexpr long connect_timeout_ms = 5000;

// curl_global_init() is a must once per process; it is never undone.
void init_curl() {
  static const CURLcode done = curl_global_init(CURL_GLOBAL_DEFAULT);
  (void)done;
}

}  // namespace

struct http_client::transfer {
  http_request request;
  on_done done;
  on_piece piece;
  CURL* easy{nullptr};
  curl_slist* headers{nullptr};
  http_response response;
  std::string fresh;  // for piece
  bool too_large{false};
  std::array<char, CURL_ERROR_SIZE> error{};

  transfer() = default;
  transfer(const transfer&) = delete;
  transfer& operator=(const transfer&) = delete;
  ~transfer() {
    if (easy != nullptr) curl_easy_cleanup(easy);
    curl_slist_free_all(headers);
  }
};

http_client::http_client(event_loop& loop) : loop_{loop} {
  init_curl();
  multi_ = curl_multi_init();
  if (multi_ == nullptr) return;
  curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, &http_client::on_socket);
  curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
  curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, &http_client::on_timer);
  curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
}

http_client::~http_client() {
  cancel();
  // Idle connections are unwatched here.
  if (multi_ != nullptr) curl_multi_cleanup(multi_);
  for (const int fd : watched_) loop_.remove_fd(fd);
  loop_.cancel(timer_);
}

void http_client::cancel() {
  here_ = std::make_shared<bool>(true);
  loop_.cancel(std::exchange(end_timer_, 0));
  if (!now_) return;
  if (now_->easy != nullptr) curl_multi_remove_handle(multi_, now_->easy);
  now_.reset();
}

void http_client::send(http_request request, on_done done, on_piece piece) {
  cancel();
  now_ = std::make_unique<transfer>();
  now_->request = std::move(request);
  now_->done = std::move(done);
  now_->piece = std::move(piece);
  const http_request& r = now_->request;
  CURL* const easy = multi_ != nullptr ? curl_easy_init() : nullptr;
  if (easy == nullptr) return finish_soon("no memory");
  now_->easy = easy;
  for (const std::string& h : r.headers)
    now_->headers = curl_slist_append(now_->headers, h.c_str());
  curl_easy_setopt(easy, CURLOPT_URL, r.url.c_str());
  curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, r.method.c_str());
  if (!r.body.empty()) {
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, r.body.c_str());
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, static_cast<long>(r.body.size()));
  }
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, now_->headers);
  curl_easy_setopt(easy, CURLOPT_USERAGENT, "sluice/" SLUICE_VERSION);
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, connect_timeout_ms);
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(r.timeout.count()));
  if (!r.ca.empty()) curl_easy_setopt(easy, CURLOPT_CAINFO, r.ca.c_str());
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, now_->error.data());
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &http_client::on_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, now_.get());
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &http_client::on_header);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, now_.get());
  if (const CURLMcode code = curl_multi_add_handle(multi_, easy); code != CURLM_OK) {
    curl_easy_cleanup(std::exchange(now_->easy, nullptr));
    finish_soon(curl_multi_strerror(code));
  }
}

void http_client::finish_soon(std::string error) {
  now_->response.error = std::move(error);
  end_timer_ = loop_.call_after({}, [this] {
    end_timer_ = 0;
    const auto ended = std::move(now_);
    ended->done(std::move(ended->response));
  });
}

std::size_t http_client::on_body(char* data, std::size_t size, std::size_t n, void* self) {
  auto& t = *static_cast<transfer*>(self);
  const std::size_t bytes = size * n;
  long status = 0;
  curl_easy_getinfo(t.easy, CURLINFO_RESPONSE_CODE, &status);
  std::string& to = t.piece && status == 200 ? t.fresh : t.response.body;
  if (to.size() + bytes > largest_body) {
    t.too_large = true;
    return 0;
  }
  to.append(data, bytes);
  return bytes;
}

std::size_t http_client::on_header(char* data, std::size_t size, std::size_t n, void* self) {
  constexpr std::string_view wanted = "x-consul-index:";
  const std::string_view line{data, size * n};
  const auto same = [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + 32 : a) == b; };
  if (line.size() > wanted.size() && std::equal(wanted.begin(), wanted.end(), line.begin(),
                                                [&](char b, char a) { return same(a, b); })) {
    std::string_view rest = line.substr(wanted.size());
    const auto from = std::min(rest.find_first_not_of(" \t"), rest.size());
    rest = rest.substr(from);
    rest = rest.substr(0, std::min(rest.find_first_of(" \t\r\n"), rest.size()));
    static_cast<transfer*>(self)->response.index = rest.substr(0, 32);
  }
  return size * n;
}

int http_client::on_socket(void*, int fd, int what, void* self, void*) {
  auto& c = *static_cast<http_client*>(self);
  if (what == CURL_POLL_REMOVE) {
    if (c.watched_.erase(fd) != 0) c.loop_.remove_fd(fd);
    return 0;
  }
  const std::uint32_t events =
      ((what & CURL_POLL_IN) != 0 ? EPOLLIN : 0u) | ((what & CURL_POLL_OUT) != 0 ? EPOLLOUT : 0u);
  if (!c.watched_.insert(fd).second) {
    (void)c.loop_.modify_fd(fd, events);
    return 0;
  }
  // Without it, the request times out.
  if (c.loop_.add_fd(fd, events, [&c, fd](std::uint32_t happened) {
        c.act(fd, ((happened & EPOLLIN) != 0 ? CURL_CSELECT_IN : 0) |
                      ((happened & EPOLLOUT) != 0 ? CURL_CSELECT_OUT : 0) |
                      ((happened & (EPOLLERR | EPOLLHUP)) != 0 ? CURL_CSELECT_ERR : 0));
      }))
    c.watched_.erase(fd);
  return 0;
}

int http_client::on_timer(void*, long ms, void* self) {
  auto& c = *static_cast<http_client*>(self);
  c.loop_.cancel(std::exchange(c.timer_, 0));
  if (ms >= 0)
    c.timer_ = c.loop_.call_after(std::chrono::milliseconds{ms}, [&c] {
      c.timer_ = 0;
      c.act(CURL_SOCKET_TIMEOUT, 0);
    });
  return 0;
}

// act() lets libcurl work; what has come of it is handed on when it is done, as that may be the
// end of this.
void http_client::act(int fd, int events) {
  int running = 0;
  curl_multi_socket_action(multi_, fd, events, &running);
  if (!now_ || now_->easy == nullptr) return;
  bool over = false;
  CURLcode result = CURLE_OK;
  int left = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi_, &left))
    if (message->msg == CURLMSG_DONE && message->easy_handle == now_->easy) {
      over = true;
      result = message->data.result;
    }
  const auto here = std::weak_ptr{here_};
  if (!now_->fresh.empty()) {
    const std::string piece = std::exchange(now_->fresh, {});
    const auto hand_on = now_->piece;
    hand_on(piece);
    if (here.expired()) return;
  }
  if (!over) return;
  const auto ended = std::move(now_);
  curl_multi_remove_handle(multi_, ended->easy);
  http_response& r = ended->response;
  if (result != CURLE_OK) {
    r.error = ended->too_large          ? "the answer is larger than 4 MiB"
              : ended->error[0] != '\0' ? ended->error.data()
                                        : curl_easy_strerror(result);
  } else {
    curl_easy_getinfo(ended->easy, CURLINFO_RESPONSE_CODE, &r.status);
  }
  ended->done(std::move(r));
}

bool read_token(const std::string& path, std::string& token, std::string& error) {
  token.clear();
  if (path.empty()) return true;
  const auto text = read_whole_file(path, largest_token, file_kinds::regular);
  if (!text) {
    error = path + ": " + text.error();
    return false;
  }
  token = text->substr(0, std::min(text->find_first_of("\r\n"), text->size()));
  const bool odd =
      std::any_of(token.begin(), token.end(), [](char c) { return c <= ' ' || c >= 0x7f; });
  if (!token.empty() && !odd) return true;
  token.clear();
  error = path + ": expected a token in its first line";
  return false;
}

std::string url_part(std::string_view text) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.' || c == '~';
    const auto byte = static_cast<unsigned char>(c);
    if (plain)
      out += c;
    else
      out.append({'%', digits[byte >> 4], digits[byte & 15]});
  }
  return out;
}

}  // namespace sluice::discover
