"""Places: consoles, shells, folders and files as they are on other people's machines."""

import json
import os
import shlex
import signal
import subprocess
import sys

import keras
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf
from conftest import SCRIPT, make_settings, run_script, start_script
from PIL import Image

import digit_recognition as dr

needs_posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such shell or file names")
TRAIN = ["--limit", "600", "--epochs", "1", "--no-show"]


@pytest.fixture
def seven(digits, tmp_path):
    """A picture of a 7, in a folder of its own."""
    (tmp_path / "pictures").mkdir()
    path = tmp_path / "pictures" / "seven.png"
    Image.fromarray(digits[0][0]).save(path)
    return path


# ----------------------------------------------------------------------------------- consoles


def run_with_closed(streams, *words):
    """Run the script in a shell without some streams, such as "2>&-"."""
    command = shlex.join([sys.executable, str(SCRIPT), *map(str, words)])
    return subprocess.run(["bash", "-c", f"{command} {streams}"], capture_output=True, text=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A real run, where there is a shell with stdin and stderr closed: (process, output folder)."""
    folder = tmp_path_factory.mktemp("trained")
    words = [*TRAIN, "--output-dir", folder]
    process = run_script(*words) if os.name == "nt" else run_with_closed("<&- 2>&-", *words)
    return process, folder


@needs_posix
def test_without_stderr_it_trains_all_the_same(trained):
    process, folder = trained
    assert process.returncode == 0 and "Test accuracy: " in process.stdout
    assert "oneDNN" not in (folder / "history.csv").read_text()


@needs_posix
def test_without_stdout_it_reads_all_the_same(seven, network, tmp_path):
    words = ["--predict", seven, "--model", network, "--output-dir", tmp_path]
    process = run_with_closed(">&-", *words)
    assert (process.returncode, process.stderr) == (0, "")
    assert (tmp_path / "predictions.png").exists()


# ------------------------------------------------------------------------------------ windows


@pytest.fixture
def use_backend():
    """A function that has Matplotlib use another backend, as MPLBACKEND does, until the end."""
    before = plt.get_backend()
    yield matplotlib.use
    plt.close("all")
    matplotlib.use(before)


@pytest.mark.parametrize("backend", ["svg", "pdf"])
def test_a_pad_without_a_window_is_refused(main, network, tmp_path, backend, use_backend):
    use_backend(backend)
    code, out, err = main("--draw", "--model", network, "--output-dir", tmp_path / "output")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert (
        err.startswith("digit_recognition.py: --draw cannot open a window") and "python3-tk" in err
    )
    assert not list(tmp_path.iterdir())


def test_in_a_notebook_no_figure_is_printed_and_the_accuracy_comes_last(
    main, tmp_path, monkeypatch, use_backend
):
    """As !python finds it: with a backend of modules, which shows figures by printing them."""
    (tmp_path / "inline.py").write_text(
        "from matplotlib.backends.backend_agg import FigureCanvasAgg as FigureCanvas\n"
        "from matplotlib.backends.backend_agg import FigureManagerBase as FigureManager\n"
        "def show(*_, **__):\n    print('Figure(1000x400)')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    use_backend("module://inline")
    code, out, err = main(*TRAIN[:-1], "--output-dir", tmp_path / "output")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("Test accuracy: ")


BACKEND = """
import time
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backend_bases import FigureManagerBase

class FigureManager(FigureManagerBase):
    @classmethod
    def pyplot_show(cls, *, block=None):
        print("shown", block, flush=True)
        {show}

class FigureCanvas(FigureCanvasAgg):
    manager_class = FigureManager

{first}
"""


def write_backend(folder, name, show="pass", first=""):
    (folder / f"{name}.py").write_text(BACKEND.format(show=show, first=first))
    return f"module://{name}"


def test_another_tools_backend_shows_the_figures_and_waits(
    main, seven, network, tmp_path, monkeypatch, use_backend
):
    """As PyCharm's does. The windows fit on a laptop's screen."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    use_backend(write_backend(tmp_path, "tool"))
    code, out, err = main("--predict", *[seven] * 9, "--model", network, "--output-dir", tmp_path)
    assert (code, err, out.splitlines()[-1]) == (0, "", "shown True")
    width, height = plt.gcf().get_size_inches() * plt.gcf().dpi
    assert width <= 1366 and height <= 768


def test_a_backend_that_cannot_be_loaded_leaves_files_and_says_so(
    main, seven, network, use_backend
):
    matplotlib.rcParams["backend"] = "module://no_such_module"  # as MPLBACKEND says it
    code, out, err = main("--predict", seven, "--model", network, "--output-dir", seven.parent)
    assert code == 0 and out.startswith(f"{seven}: 7  (7 ") and err.count("\n") == 1
    assert "are saved, but module://no_such_module cannot show them" in err
    assert (seven.parent / "predictions.png").exists()


@pytest.mark.parametrize("failure", ["raise RuntimeError('no init.tcl')", "os.abort()"])
def test_a_toolkit_that_fails_or_aborts_leaves_files_and_says_so(
    main, seven, network, tmp_path, monkeypatch, use_backend, failure
):
    """As Tk does without its init.tcl, and Qt without libxcb-cursor0."""
    broken = f"import os\ndef broken(*_, **__):\n    {failure}\n"
    broken += "FigureManager.create_with_canvas = broken"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    use_backend(write_backend(tmp_path, "no_tk", first=broken))
    code, out, err = main("--predict", seven, "--model", network, "--output-dir", tmp_path)
    assert code == 0 and "7  (7 " in out and err.count("\n") == 1
    expected = "digit_recognition.py: figures are saved, but module://no_tk cannot show them:"
    assert err.startswith(expected)
    assert (tmp_path / "predictions.png").exists()


@needs_posix
def test_ctrl_c_while_windows_are_open_ends_at_once_and_quietly(seven, network, tmp_path):
    backend = write_backend(tmp_path, "sleepy", show="time.sleep(60)")
    surroundings = os.environ | {"MPLBACKEND": backend, "PYTHONPATH": str(tmp_path)}
    words = ["--predict", seven, "--model", network, "--output-dir", tmp_path]
    process = start_script(*words, env=surroundings)
    for line in process.stdout:
        if line.startswith("shown"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=5)
    assert (process.returncode, err) == (-signal.SIGINT, "")


def test_json_opens_no_windows():
    assert not make_settings("--predict", "x.png", "--json").show


# -------------------------------------------------------------- other people's settings


def test_figures_look_the_same_whatever_matplotlibrc_says(main, seven, network, tmp_path):
    options = ["--predict", seven, "--model", network, "--output-dir"]
    assert main(*options, tmp_path / "default")[0] == 0
    theirs = {"image.origin": "lower", "text.usetex": True, "axes.titlecolor": "white"}
    matplotlib.rcParams.update(theirs)
    assert main(*options, tmp_path / "theirs")[0] == 0
    one, two = ((tmp_path / name / "predictions.png") for name in ("default", "theirs"))
    assert one.read_bytes() == two.read_bytes()


def test_the_same_command_gives_the_same_result_whatever_keras_json_says(main, trained, tmp_path):
    try:
        keras.config.set_image_data_format("channels_first")
        keras.config.set_floatx("float16")
        code, _, err = main(*TRAIN, "--output-dir", tmp_path)
    finally:
        keras.config.set_image_data_format("channels_last")
        keras.config.set_floatx("float32")
    assert (code, err) == (0, "")
    model = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert model.dtype == "float32"
    folders = tmp_path, trained[1]
    one, two = ((folder / "history.csv").read_bytes() for folder in folders)
    assert one == two
    one, two = (json.loads((folder / "metrics.json").read_text()) for folder in folders)
    assert one["test_loss"] == two["test_loss"]


def test_the_text_of_the_script_runs_in_a_notebooks_cell(monkeypatch):
    monkeypatch.chdir(SCRIPT.parent)
    cell = {"__name__": "cell"}
    exec(compile(SCRIPT.read_text(encoding="utf-8"), "cell", "exec"), cell)
    assert cell["BUNDLED_DATA"] == dr.BUNDLED_DATA


@pytest.mark.parametrize("error", [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "")])
def test_too_little_memory_is_one_line(main, tmp_path, monkeypatch, error):
    def exhaust(*_):
        raise error

    monkeypatch.setattr(dr, "train", exhaust)
    code, _, err = main(*TRAIN, "--output-dir", tmp_path)
    assert code == 1
    assert err.count("\n") == 1 and "not enough memory; lower --batch-size or --limit" in err


def test_a_callers_figures_and_backend_stay(main, seven, network):
    mine, backend = plt.figure("mine"), plt.get_backend()
    main("--predict", seven, "--model", network, "--output-dir", seven.parent, "--no-show")
    assert mine.number in plt.get_fignums() and plt.get_backend() == backend


# -------------------------------------------------------------------------------------- files


def damaged(content):
    return lambda path, model: path.write_bytes(content)


def cut(path, model):
    model.save(path)
    path.write_bytes(path.read_bytes()[:-2000])


def without_softmax(path, model):
    layers = [keras.Input((28, 28, 1)), *model.layers[:-1], keras.layers.Dense(10, name="logits")]
    keras.Sequential(layers).save(path)


def of_images(path, model):
    keras.Sequential([keras.Input((28, 28, 1)), *model.layers[:3]]).save(path)


MODELS = {  # how it is made, and what the line says
    "empty": (damaged(b""), "not a zip file"),
    "foreign": (damaged(b"\x89PNG" * 99), "not a zip file"),
    "cut": (cut, "not a zip file"),
    "no probabilities": (without_softmax, "not a probability for each class"),
    "images": (of_images, "not a probability for each class"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_file_that_is_not_a_model_is_refused(main, seven, network, name):
    make, expected = MODELS[name]
    path = seven.parent / "model.keras"
    make(path, keras.saving.load_model(network))
    code, out, err = main("--predict", seven, "--model", path)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"{path}: no model; train one" in err and expected in err


@needs_posix
def test_names_that_cannot_be_read_do_not_end_the_reading_of_others(main, seven, network):
    names = ["x" * 5000, "/root/no/such.png", seven]
    options = ["--model", network, "--output-dir", seven.parent]
    code, out, err = main("--predict", *names, *options)
    assert code == 1 and out.startswith(f"{seven}: 7") and err.count("\n") == 2


def test_what_cannot_be_read_in_a_folder_is_named_and_dots_are_passed_over(main, seven, network):
    (seven.parent / "IMG_1.HEIC").write_bytes(b"of a phone")
    (seven.parent / ".hidden.png").write_bytes(b"of a Mac")
    (seven.parent / "more").mkdir()
    options = ["--model", network, "--output-dir", seven.parent.parent / "output"]
    code, out, err = main("--predict", seven.parent, *options)
    assert code == 0 and out.startswith(f"{seven}: 7")
    assert err.count("\n") == 1 and f"{seven.parent}: skipped IMG_1.HEIC, more; " in err


def test_a_folder_without_pictures_is_named(main, tmp_path, network):
    code, out, err = main("--predict", tmp_path, "--model", network)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"{tmp_path}: no picture; name one, or a folder of pictures" in err


def test_of_several_pages_the_first_is_read(main, digits, tmp_path, network):
    pages = [Image.fromarray(image) for image in digits[0][:3]]
    pages[0].save(tmp_path / "scan.tiff", save_all=True, append_images=pages[1:])
    options = ["--model", network, "--output-dir", tmp_path]
    code, out, err = main("--predict", tmp_path / "scan.tiff", *options)
    assert (code, err) == (0, "") and out.startswith(f"{tmp_path / 'scan.tiff'}: 7")


def test_a_phones_200_megapixels_are_read(main, digits, tmp_path, network):
    ink = np.pad(np.asarray(Image.fromarray(digits[0][0]).resize((1400, 1400))), 300)
    Image.fromarray(255 - ink).resize((16000, 12500)).save(tmp_path / "photo.jpg", quality=50)
    options = ["--model", network, "--output-dir", tmp_path]
    code, out, err = main("--predict", tmp_path / "photo.jpg", *options)
    assert (code, err) == (0, "") and out.startswith(f"{tmp_path / 'photo.jpg'}: 7")


@pytest.mark.parametrize("source", [None, 7, np.zeros((2, 3, 4, 5))])
def test_what_is_no_picture_gets_one_sentence(network, source):
    with pytest.raises(dr.InputError, match=r"^image: .*; save it again, as a PNG or JPEG$"):
        dr.read_digits(source, dr.load_model(network))


def test_bytes_are_no_picture_either(network):
    with pytest.raises(dr.InputError, match=r"^image: no picture; name one, or a folder"):
        dr.read_digits(b"\x89PNG", dr.load_model(network))


def test_an_array_with_a_channel_is_read_as_one_without(mnist, network):
    image, model = mnist[1][0][0], dr.load_model(network)
    assert image.shape == (28, 28, 1)
    assert dr.row_texts(dr.read_digits(image, model).rows) == ["7"]
    assert dr.row_texts(dr.read_digits(image[..., 0], model).rows) == ["7"]


def test_an_empty_output_folder_is_the_current_one(main, seven, network, monkeypatch):
    monkeypatch.chdir(seven.parent)
    code, out, _ = main("--predict", seven, "--model", network, "--output-dir", "")
    assert code == 0 and "See predictions.png (" in out
    assert (seven.parent / "predictions.png").exists()


def test_patterns_that_the_shell_left_as_they_are_name_pictures(main, seven, network):
    options = ["--model", network, "--output-dir", seven.parent / "output"]
    code, out, err = main("--predict", seven.parent / "*.png", *options)
    assert (code, err) == (0, "") and out.startswith(f"{seven}: 7  (")


def test_a_picture_is_drawn_from_what_was_read_even_if_it_is_gone(
    main, seven, network, monkeypatch
):
    read = dr.read_digits

    def read_and_delete(path, model):
        reading = read(path, model)
        path.unlink()
        return reading

    monkeypatch.setattr(dr, "read_digits", read_and_delete)
    code, _, err = main("--predict", seven, "--model", network, "--output-dir", seven.parent)
    assert (code, err) == (0, "") and (seven.parent / "predictions.png").exists()


def test_a_picture_with_damaged_exif_data_is_read_without_turning_it(digits, network, tmp_path):
    page = Image.fromarray(digits[0][0]).resize((200, 200))
    page.save(tmp_path / "exif.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0")
    assert dr.row_texts(dr.read_digits(tmp_path / "exif.png", dr.load_model(network)).rows) == ["7"]
