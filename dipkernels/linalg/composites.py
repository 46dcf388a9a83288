"""What operators make together: weighted sums, products, adjoints."""

from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.linalg.linear import LinearOperator, summed
from dipkernels.linalg.operator import SymmetricOperator

Term = tuple[float, LinearOperator]


@checked
class Adjoint(LinearOperator):
    """The transpose of an operator."""

    def __init__(self, operator: LinearOperator) -> None:
        self.operator = operator
        self.shape = operator.shape[::-1]
        self.dtype, self.device = operator.dtype, operator.device

    def adjoint(self) -> LinearOperator:
        """Give back the operator."""
        return self.operator

    def _matmat(self, block: Tensor) -> Tensor:
        return self.operator._rmatmat(block)

    def _rmatmat(self, block: Tensor) -> Tensor:
        return self.operator._matmat(block)

    def __repr__(self) -> str:
        return f"Adjoint({self.operator!r})"


@checked
class WeightedSum(LinearOperator):
    """``sum_i c_i A_i`` of operators of one size, dtype and device."""

    def __init__(self, *terms: Term) -> None:
        self.terms, first = terms, terms[0][1]
        self.shape, self.dtype, self.device = first.shape, first.dtype, first.device

    @classmethod
    def suits(cls, operators: list[LinearOperator]) -> bool:
        """Tell whether a sum of these is one of this kind."""
        return bool(operators)

    def to_dense(self) -> Tensor:
        """Sum the matrices, each at its own price."""
        return summed([c * each.to_dense() for c, each in self.terms])

    def _matmat(self, block: Tensor) -> Tensor:
        return summed([c * each._matmat(block) for c, each in self.terms])

    def _rmatmat(self, block: Tensor) -> Tensor:
        return summed([c * each._rmatmat(block) for c, each in self.terms])

    def __repr__(self) -> str:
        return f"({' + '.join(f'{c!r} * {each!r}' for c, each in self.terms)})"


@checked
class SymmetricSum(WeightedSum, SymmetricOperator):
    """A weighted sum of symmetric operators: forms and exact diagonals at the price of each."""

    terms: tuple[tuple[float, SymmetricOperator], ...]

    @classmethod
    def suits(cls, operators: list[LinearOperator]) -> bool:
        """Tell whether a sum of these is one of this kind."""
        return all(isinstance(each, SymmetricOperator) for each in operators)

    def _forms(self, block: Tensor) -> Tensor:
        return summed([c * each._forms(block) for c, each in self.terms])

    def _exact_diagonal(self, block: int = 64) -> Tensor:
        return summed([c * each._exact_diagonal(block) for c, each in self.terms])


@checked
class OperatorProduct(LinearOperator):
    """``A_1 A_2 ... A_r``, multiplied from the right."""

    def __init__(self, *factors: LinearOperator) -> None:
        self.factors, first = factors, factors[0]
        self.shape = (first.shape[0], factors[-1].shape[1])
        self.dtype, self.device = first.dtype, first.device

    @classmethod
    def suits(cls, factors: list[LinearOperator]) -> bool:
        """Tell whether a product of these is one of this kind."""
        return bool(factors)

    def _matmat(self, block: Tensor) -> Tensor:
        for factor in reversed(self.factors):
            block = factor._matmat(block)
        return block

    def _rmatmat(self, block: Tensor) -> Tensor:
        for factor in self.factors:
            block = factor._rmatmat(block)
        return block

    def __repr__(self) -> str:
        return f"({' @ '.join(map(repr, self.factors))})"


@checked
class SymmetricProduct(OperatorProduct, SymmetricOperator):
    """``B K B^T`` or ``B B^T``, B a product; forms cost what they do with the middle."""

    @classmethod
    def suits(cls, factors: list[LinearOperator]) -> bool:
        """Tell whether the factors read the same backwards, transposed."""
        half = len(factors) // 2
        middle = factors[half : len(factors) - half]
        pairs = zip(factors[:half], reversed(factors), strict=False)
        return all(isinstance(each, SymmetricOperator) for each in middle) and all(
            a.adjoint() is b or b.adjoint() is a for a, b in pairs
        )

    def _rmatmat(self, block: Tensor) -> Tensor:
        return self._matmat(block)

    def _forms(self, block: Tensor) -> Tensor:
        half = len(self.factors) // 2
        for factor in reversed(self.factors[len(self.factors) - half :]):
            block = factor._matmat(block)
        middle = self.factors[half]
        if len(self.factors) % 2 and isinstance(middle, SymmetricOperator):
            return middle._forms(block)
        return block.square().sum(dim=0)


# The first of each that suits is taken.
SUMS: list[type[WeightedSum]] = [SymmetricSum, WeightedSum]
PRODUCTS: list[type[OperatorProduct]] = [SymmetricProduct, OperatorProduct]


def weighted_sum(*terms: Term) -> LinearOperator:
    """Sum operators with coefficients; the same one twice is one term."""
    flat: dict[int, Term] = {}
    for weight, operator in terms:
        inner = operator.terms if isinstance(operator, WeightedSum) else ((1.0, operator),)
        for c, each in inner:
            flat[id(each)] = (flat.get(id(each), (0.0, each))[0] + weight * c, each)
    operators = [each for _, each in flat.values()]
    require_alike(operators, "added")
    if len({each.shape for each in operators}) > 1:
        shapes = " and ".join(str(each.shape) for _, each in terms)
        raise InvalidInputError(f"operators of shapes {shapes} can't be added")
    kept = [term for term in flat.values() if term[0] != 0] or list(flat.values())[:1]
    if len(kept) == 1 and kept[0][0] == 1:
        return kept[0][1]
    found = [each for _, each in kept]
    return next(kind for kind in SUMS if kind.suits(found))(*kept)


def operator_product(left: LinearOperator, right: LinearOperator) -> LinearOperator:
    """Multiply operators, taking their numerical factors in front."""
    require_alike([left, right], "multiplied")
    if left.shape[1] != right.shape[0]:
        raise InvalidInputError(
            f"operators of shapes {left.shape} and {right.shape} can't be multiplied"
        )
    number, factors = 1.0, list[LinearOperator]()
    for operator in (left, right):
        each = operator
        if isinstance(each, WeightedSum) and len(each.terms) == 1:
            number, each = number * each.terms[0][0], each.terms[0][1]
        factors += each.factors if isinstance(each, OperatorProduct) else [each]
    found = next(kind for kind in PRODUCTS if kind.suits(factors))(*factors)
    return weighted_sum((number, found))


def require_alike(operators: list[LinearOperator], what: str) -> None:
    """Require one dtype and device."""
    kinds = {f"{each.dtype} on {each.device}" for each in operators}
    if len(kinds) > 1:
        raise InvalidInputError(
            f"operators of {' and '.join(sorted(kinds))} can't be {what}: make them of one dtype "
            "and device"
        )


LinearOperator._sum_of = staticmethod(weighted_sum)
LinearOperator._product_of = staticmethod(operator_product)
LinearOperator._adjoint_of = Adjoint
