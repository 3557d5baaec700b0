<?php
// Stands in for the parts of Laravel that docs/examples/SendCampaign.php uses. Runs handle() once:
// laravel.php JOB_FILE EXPORTER; prints what became of the job, as JSON.

namespace Illuminate\Contracts\Queue {
    interface ShouldQueue
    {
    }
    interface ShouldBeUnique
    {
    }
}

namespace Illuminate\Foundation\Queue {
    trait Queueable
    {
        public array $outcome = [];

        public function release(int $delay = 0): void
        {
            $this->outcome = ['released', $delay];
        }

        public function fail(\Throwable $exception): void
        {
            $this->outcome = ['failed', $exception->getMessage()];
        }
    }
}

namespace Illuminate\Support\Facades {
    class Response
    {
        public function __construct(private int $status, private array $headers, private string $body)
        {
        }

        public function status(): int
        {
            return $this->status;
        }

        public function body(): string
        {
            return $this->body;
        }

        public function header(string $name): string
        {
            return $this->headers[strtolower($name)] ?? '';
        }

        public function throw(): static
        {
            return $this->status < 400 ? $this : throw new \RuntimeException("HTTP {$this->status}: {$this->body}");
        }
    }

    class Http
    {
        private function __construct(private string $url)
        {
        }

        public static function baseUrl(string $url): static
        {
            return new static($url);
        }

        public function timeout(int $seconds): static
        {
            return $this;
        }

        public function __call(string $method, array $arguments): Response
        {
            $context = stream_context_create(['http' => [
                'method' => strtoupper($method),
                'header' => 'Content-Type: application/json',
                'content' => isset($arguments[1]) ? json_encode($arguments[1]) : '',
                'ignore_errors' => true,
            ]]);
            $stream = @fopen($this->url . $arguments[0], 'r', false, $context)
                ?: throw new \RuntimeException('no connection');
            $lines = stream_get_meta_data($stream)['wrapper_data'];
            $headers = [];
            foreach (array_slice($lines, 1) as $line) {
                [$name, $value] = explode(': ', $line, 2);
                $headers[strtolower($name)] = $value;
            }
            return new Response((int) explode(' ', $lines[0])[1], $headers, stream_get_contents($stream));
        }
    }
}

namespace {
    function config(string $name): string
    {
        return $name === 'services.mobizon.exporter' ? $GLOBALS['argv'][2] : throw new Exception($name);
    }

    require __DIR__ . '/mobizon_api.php';
    require $argv[1];
    $job = new App\Jobs\SendCampaign(1, 1001);
    try {
        $job->handle(new Mobizon\MobizonApi(getenv('MOBIZON_KEY'), 'api.mobizon.kz'));
    } catch (RuntimeException $error) {
        $job->outcome = ['thrown', $error->getMessage()];
    }
    echo json_encode($job->outcome);
}
